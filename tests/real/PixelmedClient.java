/*
 * PixelMed as a client: one operation for each start, by the classes of com.pixelmed.network.
 *
 *     java -cp ... PixelmedClient.java echo|store|find|worklist|get|move PORT CALLED CALLING ARGUMENT...
 *
 * It says a line for each thing that happened: "status", "match" or "error", and what it was.
 */

import com.pixelmed.dicom.Attribute;
import com.pixelmed.dicom.AttributeList;
import com.pixelmed.dicom.AttributeTag;
import com.pixelmed.dicom.DicomDictionary;
import com.pixelmed.dicom.SetOfDicomFiles;
import com.pixelmed.dicom.SOPClass;
import com.pixelmed.dicom.StoredFilePathStrategy;
import com.pixelmed.network.FindSOPClassSCU;
import com.pixelmed.network.GetSOPClassSCU;
import com.pixelmed.network.IdentifierHandler;
import com.pixelmed.network.MoveSOPClassSCU;
import com.pixelmed.network.MultipleInstanceTransferStatusHandler;
import com.pixelmed.network.ReceivedObjectHandler;
import com.pixelmed.network.StorageSOPClassSCU;
import com.pixelmed.network.VerificationSOPClassSCU;
import java.io.File;
import java.util.List;
import java.util.Set;

public class PixelmedClient {
    private static final String HOST = "localhost";
    private static final DicomDictionary NAMES = new DicomDictionary();
    // PixelMed itself has no name for it.
    private static final String MODALITY_WORKLIST = "1.2.840.10008.5.1.4.31";
    // Of the objects that the matrix retrieves.
    private static final Set<String> IMAGES = Set.of(SOPClass.CTImageStorage, SOPClass.MRImageStorage);

    private final int port;
    private final String called;
    private final String calling;

    private PixelmedClient(String port, String called, String calling) {
        this.port = Integer.parseInt(port);
        this.called = called;
        this.calling = calling;
    }

    public static void main(String[] given) {
        try {
            PixelmedClient client = new PixelmedClient(given[1], given[2], given[3]);
            client.perform(given[0], List.of(given).subList(4, given.length));
        } catch (Exception error) {
            say("error", error.getMessage());
        }
        // Threads of a listener that nobody needs any more would keep it running.
        System.exit(0);
    }

    private void perform(String operation, List<String> arguments) throws Exception {
        switch (operation) {
            case "echo" -> {
                new VerificationSOPClassSCU(HOST, port, called, calling, false);
                say("status", "0000");
            }
            case "store" -> store(arguments);
            case "find" -> find(SOPClass.StudyRootQueryRetrieveInformationModelFind, identifier(arguments));
            case "worklist" -> find(MODALITY_WORKLIST, identifier(arguments));
            case "get" -> get(new File(arguments.get(0)), identifier(arguments.subList(1, arguments.size())));
            case "move" -> move(arguments.get(0), identifier(arguments.subList(1, arguments.size())));
            default -> throw new IllegalArgumentException("no such operation: " + operation);
        }
    }

    private static void say(String what, String detail) {
        System.out.println(what + " " + String.valueOf(detail).replace('\n', ' '));
    }

    private static AttributeList identifier(List<String> pairs) throws Exception {
        AttributeList made = new AttributeList();
        for (String pair : pairs) {
            int at = pair.indexOf('=');
            Attribute attribute = made.putNewAttribute(NAMES.getTagFromName(pair.substring(0, at)));
            if (at + 1 < pair.length()) {
                attribute.addValue(pair.substring(at + 1));
            }
        }
        return made;
    }

    private void store(List<String> files) throws Exception {
        SetOfDicomFiles set = new SetOfDicomFiles();
        for (String file : files) {
            set.add(file);
        }
        MultipleInstanceTransferStatusHandler handler = new MultipleInstanceTransferStatusHandler() {
            @Override
            public void updateStatus(int remaining, int completed, int failed, int warned, String instance) {
                say("status", completed + " stored, " + failed + " failed, " + warned + " with a warning: " + instance);
                if (failed > 0) {
                    say("error", "not stored");
                }
            }
        };
        if (new StorageSOPClassSCU(HOST, port, called, calling, set, 0, handler).encounteredTrappedExceptions()) {
            say("error", "it was not sent to the end");
        }
    }

    private void find(String model, AttributeList identifier) throws Exception {
        IdentifierHandler handler = new IdentifierHandler() {
            @Override
            public void doSomethingWithIdentifier(AttributeList found) {
                StringBuilder line = new StringBuilder();
                for (Object each : found.keySet()) {
                    AttributeTag tag = (AttributeTag) each;
                    line.append(tag).append('=').append(found.get(tag).getDelimitedStringValuesOrEmptyString()).append("; ");
                }
                say("match", line.toString());
            }
        };
        new FindSOPClassSCU(HOST, port, called, calling, model, identifier, handler);
        say("status", "0000");
    }

    private void get(File folder, AttributeList identifier) throws Exception {
        ReceivedObjectHandler handler = new ReceivedObjectHandler() {
            @Override
            public void sendReceivedObjectIndication(String file, String transferSyntax, String from) {
                // What is in the folder is looked at later.
            }
        };
        new GetSOPClassSCU(HOST, port, called, calling, SOPClass.StudyRootQueryRetrieveInformationModelGet, identifier,
            new IdentifierHandler(), folder, StoredFilePathStrategy.getDefaultStrategy(), handler, IMAGES, true, false, false);
        say("status", "0000");
    }

    private void move(String destination, AttributeList identifier) throws Exception {
        String model = SOPClass.StudyRootQueryRetrieveInformationModelMove;
        say("status", String.format("%04X",
            new MoveSOPClassSCU(HOST, port, called, calling, destination, model, identifier).getStatus()));
    }
}
