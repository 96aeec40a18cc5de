// Runs the network beside the page, so that the page stays quick. onnxruntime-web stands before this text.
let session;

async function load({ wasm, glue, network }) {
  const address = URL.createObjectURL(new Blob([glue], { type: "text/javascript" }));
  ort.env.wasm.numThreads = 1; // more threads need headers that a file does not have
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.wasmPaths = { mjs: address };
  session = await ort.InferenceSession.create(new Uint8Array(network), { executionProviders: ["wasm"] });
  postMessage({ kind: "ready" });
}

async function run({ feeds }) {
  const started = performance.now();
  const tensors = {};
  for (const { name, data, shape } of feeds) tensors[name] = new ort.Tensor("float32", data, shape);
  const { picture } = await session.run(tensors);
  const [, , height, width] = picture.dims;
  const seconds = (performance.now() - started) / 1000;
  postMessage({ kind: "picture", data: picture.data, height, width, seconds });
}

onmessage = async ({ data: message }) => {
  try {
    await (message.kind === "load" ? load(message) : run(message));
  } catch (error) {
    postMessage({ kind: "failed", text: String(error.message || error).split("\n")[0] });
  }
};
