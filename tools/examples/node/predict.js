// Asks a server for a prediction, from Node: one tensor per column, raw contents both ways.
//
//     npm install
//     node predict.js 127.0.0.1:8001 fares '{"age": [41, 7], "city": ["Oslo", ""]}' [inference.proto]
//
// It prints the outputs as JSON. The proto is the one in `protos/penstock`; a service keeps a copy of its own.

import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import { fileURLToPath } from "node:url";

const PROTO = fileURLToPath(new URL("../../../protos/penstock/inference.proto", import.meta.url));
const DEADLINE_MS = 5000;
// The datatype's size in bytes, how an element is written, and how it is read. Texts are a length of 4 bytes and their UTF-8.
const TYPES = {
  INT32: [4, (view, at, value) => view.setInt32(at, value, true), (view, at) => view.getInt32(at, true)],
  INT64: [8, (view, at, value) => view.setBigInt64(at, BigInt(value), true), (view, at) => Number(view.getBigInt64(at, true))],
  FP32: [4, (view, at, value) => view.setFloat32(at, value, true), (view, at) => view.getFloat32(at, true)],
  FP64: [8, (view, at, value) => view.setFloat64(at, value, true), (view, at) => view.getFloat64(at, true)],
  BOOL: [1, (view, at, value) => view.setUint8(at, value ? 1 : 0), (view, at) => view.getUint8(at) !== 0],
};

function rawOf(datatype, values) {
  if (datatype === "BYTES") {
    return Buffer.concat(
      values.flatMap((text) => {
        const bytes = Buffer.from(text ?? "");
        const size = Buffer.alloc(4);
        size.writeUInt32LE(bytes.length);
        return [size, bytes];
      }),
    );
  }
  const [size, write] = TYPES[datatype];
  const raw = Buffer.alloc(size * values.length);
  const view = new DataView(raw.buffer, raw.byteOffset, raw.length);
  values.forEach((value, at) => write(view, at * size, value));
  return raw;
}

function valuesOf(datatype, raw) {
  const values = [];
  if (datatype === "BYTES") {
    for (let at = 0; at < raw.length; ) {
      const size = raw.readUInt32LE(at);
      values.push(raw.toString("utf8", at + 4, at + 4 + size));
      at += 4 + size;
    }
    return values;
  }
  const [size, , read] = TYPES[datatype];
  const view = new DataView(raw.buffer, raw.byteOffset, raw.length);
  for (let at = 0; at < raw.length; at += size) values.push(read(view, at));
  return values;
}

function called(client, method, request) {
  const deadline = Date.now() + DEADLINE_MS;
  return new Promise((resolve, reject) => {
    client[method](request, { deadline }, (error, reply) => (error ? reject(error) : resolve(reply)));
  });
}

export async function predict(client, model, columns) {
  const declared = await called(client, "ModelMetadata", { name: model });
  const wanted = declared.inputs.filter((input) => input.name in columns);
  const reply = await called(client, "ModelInfer", {
    model_name: model,
    inputs: wanted.map(({ name, datatype, shape }) => ({
      name,
      datatype,
      // One value per row, of shape [N] or [N, 1].
      shape: [columns[name].length, ...shape.slice(1)],
    })),
    raw_input_contents: wanted.map(({ name, datatype }) => rawOf(datatype, columns[name])),
  });
  const outputs = reply.outputs.map(({ name, datatype }, at) => [name, valuesOf(datatype, reply.raw_output_contents[at])]);
  return { version: reply.model_version, outputs: Object.fromEntries(outputs) };
}

const [address, model, rows, proto] = process.argv.slice(2);
const definition = loader.loadSync(proto ?? PROTO, { keepCase: true, longs: Number, defaults: true });
const { inference } = grpc.loadPackageDefinition(definition);
const client = new inference.GRPCInferenceService(address, grpc.credentials.createInsecure());
try {
  console.log(JSON.stringify(await predict(client, model, JSON.parse(rows))));
} catch (error) {
  console.error(`${grpc.status[error.code] ?? error.name}: ${error.details ?? error.message}`);
  process.exitCode = 1;
} finally {
  client.close();
}
