'use strict';
// A caller on @grpc/grpc-js. It reads lists of calls as lines of JSON, makes those of a list at once, and writes a line
// that says how each ended. Messages are base64.
const fs = require('node:fs');
const readline = require('node:readline');

const { folder, address, ca, certificate, key, options } = JSON.parse(process.argv[2]);
const grpc = require(require.resolve('@grpc/grpc-js', { paths: [folder] }));

const read = (path) => (path ? fs.readFileSync(path) : null);
const credentials = ca
  ? grpc.credentials.createSsl(read(ca), read(key), read(certificate))
  : grpc.credentials.createInsecure();
const plain = new grpc.Client(address, credentials, options);
const GZIP = { 'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip };
const compressing = new grpc.Client(address, credentials, { ...options, ...GZIP });
const same = (bytes) => bytes;

function metadataOf(pairs) {
  const metadata = new grpc.Metadata();
  for (const [name, value] of pairs) {
    metadata.add(name, name.endsWith('-bin') ? Buffer.from(value, 'base64') : value);
  }
  return metadata;
}

function make(call) {
  return new Promise((resolve) => {
    const client = call.is_compressed ? compressing : plain;
    const metadata = metadataOf(call.metadata);
    const deadline = { deadline: Date.now() + 1000 * call.timeout_s };
    const messages = call.messages.map((text) => Buffer.from(text, 'base64'));
    const replies = [];
    const ended = (status) =>
      resolve({
        code: grpc.status[status.code],
        details: status.details,
        replies: replies.map((bytes) => bytes.toString('base64')),
        trailers: status.metadata.getMap(),
      });
    let made;
    if (call.is_unary) {
      const took = (_error, reply) => reply && replies.push(reply);
      made = client.makeUnaryRequest(call.method, same, same, messages[0], metadata, deadline, took);
    } else {
      made = client.makeBidiStreamRequest(call.method, same, same, metadata, deadline);
      made.on('data', (reply) => replies.push(reply));
      made.on('error', () => {}); // the status says it too
      messages.forEach((message) => made.write(message));
      made.end();
    }
    made.on('status', ended);
    if (call.leave_after_s !== null) setTimeout(() => made.cancel(), 1000 * call.leave_after_s);
  });
}

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const outcomes = await Promise.all(JSON.parse(line).map(make));
  process.stdout.write(JSON.stringify(outcomes) + '\n');
});
