"""The DICOM upper layer (PS3.8) and messages (PS3.7), sans I/O.

Rules of this room: values, decoders, encoders and tables. No sockets, no clocks, no policy. Whatever a peer sends, a
decoder here returns a value or raises `RemoteProtocolError`; whatever we ask for, an encoder returns bytes or raises
`LocalProtocolError`. Only framing may say that it needs more data.
"""
