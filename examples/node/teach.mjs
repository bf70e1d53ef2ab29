// Teach a concept from pictures and render it, from the protos alone.
//
//   npm install
//   node teach.mjs tom cat "a photo of a <tom> in the snow" pictures/*.png
//
// perfuse.binpb comes from `make descriptors`; PERFUSE_TOKEN is a publisher's token of
// PERFUSE_TENANT.
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const { PERFUSE_TENANT = "local", PERFUSE_TOKEN, PERFUSE_STEPS = "200" } = process.env;
const descriptors = readFileSync(process.env.PERFUSE_DESCRIPTORS ?? "perfuse.binpb");
const protos = loader.loadFileDescriptorSetFromBuffer(descriptors, { keepCase: true, enums: String });
const { RegistryService, TrainerService, RendererService } = grpc.loadPackageDefinition(protos).perfuse.v1;

const plain = grpc.credentials.createInsecure(); // on loopback; createSsl() elsewhere
const registry = new RegistryService(process.env.PERFUSE_REGISTRY ?? "127.0.0.1:7071", plain);
const trainer = new TrainerService(process.env.PERFUSE_TRAINER ?? "127.0.0.1:7072", plain);
const renderer = new RendererService(process.env.PERFUSE_RENDERER ?? "127.0.0.1:7073", plain);
const caller = new grpc.Metadata();
caller.set("authorization", `Bearer ${PERFUSE_TOKEN}`);
const call = (service, method, request) =>
  new Promise((done, failed) =>
    service[method](request, caller, (error, answer) => (error ? failed(error) : done(answer))),
  );

const [id, superCategory, prompt, ...pictures] = process.argv.slice(2);
const parent = `tenants/${PERFUSE_TENANT}`;

// 1. The Registry: a concept, which its versions will belong to.
const concept = await call(registry, "CreateConcept", {
  parent,
  concept_id: id,
  concept: { super_category: superCategory },
});

// 2. The Trainer: pictures as a client stream, then a run, watched to its end.
const imageSet = await call(trainer, "CreateImageSet", { parent });
await new Promise((done, failed) => {
  const upload = trainer.UploadImages(caller, (error) => (error ? failed(error) : done()));
  upload.write({ image_set: imageSet.name });
  for (const file of pictures) {
    const data = readFileSync(file);
    const digest = `sha256:${createHash("sha256").update(data).digest("hex")}`;
    upload.write({ header: { file_name: basename(file), digest, size_bytes: data.length } });
    upload.write({ chunk: data });
  }
  upload.end();
});
const run = await call(trainer, "CreateTrainingRun", {
  parent,
  training_run: {
    concept: concept.name,
    image_set: imageSet.name,
    settings: { steps: Number(PERFUSE_STEPS), flip: 0 },
  },
});
const watching = trainer.WatchTrainingRun({ name: run.name }, caller);
watching.on("data", ({ progress, state_change }) => {
  if (progress) console.log(`step ${progress.step} of ${progress.steps}, loss ${progress.loss}`);
  if (state_change) console.log(state_change.state, state_change.version, state_change.error ?? "");
});
await once(watching, "end");

// 3. The Renderer: pictures as a server stream.
const events = renderer.Render({ settings: { prompt, seeds: [1] } }, caller);
events.on("data", ({ image }) => {
  if (image) writeFileSync(`${id}.png`, image.picture);
});
await once(events, "end");
console.log(`${id}.png`);
