// One operation with dcmjs-dimse, described by a JSON argument; prints one line of JSON:
// {"statuses": [...], "matches": [...], "received": [...], "errors": [...]}
const fs = require('fs');
const dcmjsDimse = require('dcmjs-dimse');
const { Client } = dcmjsDimse;
const requests = dcmjsDimse.requests;
const { CStoreResponse } = dcmjsDimse.responses;

dcmjsDimse.log.level = 'silent';
const job = JSON.parse(process.argv[2]);
const answer = { statuses: [], matches: [], received: [], errors: [] };
const PENDING = 0xff00;
const PENDING_WITH_WARNING = 0xff01;

function makeRequests() {
  switch (job.operation) {
    case 'echo':
      return [new requests.CEchoRequest()];
    case 'store':
      return job.files.map((file) => new requests.CStoreRequest(file));
    case 'find':
      return [requests.CFindRequest.createStudyFindRequest(job.elements)];
    case 'worklist':
      return [requests.CFindRequest.createWorklistFindRequest(job.elements)];
    case 'get':
      return [requests.CGetRequest.createStudyGetRequest(job.study)];
    case 'move':
      return [requests.CMoveRequest.createStudyMoveRequest(job.destination, job.study)];
    default:
      throw new Error(`unknown operation ${job.operation}`);
  }
}

function describe(dataset) {
  const elements = dataset.getElements();
  const keys = Object.keys(elements).filter((key) => !key.startsWith('_')).sort();
  return keys.map((key) => `${key}=${JSON.stringify(elements[key])}`).join('; ');
}

const client = new Client();
const operations = makeRequests();
const expected = operations.length;
for (const request of operations) {
  request.on('response', (response) => {
    const status = response.getStatus();
    if (status === PENDING || status === PENDING_WITH_WARNING) {
      if (response.hasDataset()) {
        answer.matches.push(describe(response.getDataset()));
      }
      return;
    }
    answer.statuses.push(status);
  });
  client.addRequest(request);
}
client.on('cStoreRequest', (request, callback) => {
  answer.received.push(request.getAffectedSopInstanceUid());
  const response = CStoreResponse.fromRequest(request);
  response.setStatus(0);
  callback(response);
});
// After the last answer dcmjs-dimse 0.3.3 may write to a socket that it has ended: no matter of ours.
client.on('networkError', (error) => {
  if (answer.statuses.length < expected) answer.errors.push(`network: ${error.code || error.message}`);
});
client.on('associationRejected', (reject) =>
  answer.errors.push(`rejected ${reject.getResult()}/${reject.getSource()}/${reject.getReason()}`)
);
client.on('abort', () => answer.errors.push('aborted'));
process.on('exit', () => console.log(JSON.stringify(answer)));

const options = {};
if (job.tls.key) {
  options.securityOptions = {
    key: fs.readFileSync(job.tls.key),
    cert: fs.readFileSync(job.tls.cert),
    ca: fs.readFileSync(job.tls.ca),
    rejectUnauthorized: true,
  };
}
client.send(job.host, job.port, job.calling, job.called, options);
