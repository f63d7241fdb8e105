// Routes logits on your GPU with the kernel that the engine runs, and checks every row against the reference.
//
//     node --conditions=routed-experts-source examples/router.ts      in a checkout
//     node examples/router.ts                                         where the package is installed

import { prepareAdapters } from 'routed-experts';
import { GpuRouter, routeRow, WEIGHT_TOLERANCE } from 'routed-experts/router';
import { create } from 'webgpu';

// Where there is no GPU, WebGPU finds the software adapter that comes with the package. In a browser: `navigator.gpu`.
await prepareAdapters();
const gpu = create([]);
const adapter = await gpu.requestAdapter();
if (adapter === null) throw new Error('there is no WebGPU adapter');
const requiredFeatures = [...adapter.features].filter((feature) => feature === 'subgroups') as GPUFeatureName[];
const device = await adapter.requestDevice({ requiredFeatures });

const router = new GpuRouter(device, { numExperts: 128, topK: 8, scoring: 'softmax', renormalize: true });
const { numExperts, topK } = router.routingFunction;
const logits = Float32Array.from({ length: 100 * numExperts }, (_, i) => Math.sin(i * i));
const { ids, weights } = await router.route(logits);
console.log(`${router.kernelName} on ${adapter.info.description}`);

let numWrong = 0;
for (let row = 0; row < 100; row++) {
  const expected = routeRow(router.routingFunction, logits.subarray(row * numExperts, (row + 1) * numExperts));
  for (let k = 0; k < topK; k++) {
    const error = Math.abs(weights[row * topK + k]! / expected.weights[k]! - 1);
    if (ids[row * topK + k] !== expected.ids[k] || error > WEIGHT_TOLERANCE) numWrong++;
  }
}
console.log(`row 0: experts ${ids.subarray(0, topK).join(', ')}; ${numWrong} of ${ids.length} choices are wrong`);
await router.destroy();
device.destroy();
if (numWrong > 0) process.exitCode = 1;
