/**
 * `routed-experts/router`: the router kernels that the engine runs, on a `GPUDevice` that the caller has. Nothing of
 * Node, no `webgpu`: the same in a browser.
 *
 *     const router = new GpuRouter(device, { numExperts: 128, topK: 8, scoring: 'softmax', renormalize: true });
 *     const { ids, weights } = await router.route(logits);       f32 [T, E] → u32 [T, K], f32 [T, K]
 *     (await router.bind({ logits, ids, weights }, T)).encode(pass);      the same for buffers on the device
 *
 * A routing function says how experts are scored, chosen and weighed; docs/router-kernels.md has those of published
 * models. `routeRow` is its reference in f64. A project in TypeScript needs the types of WebGPU: `lib.dom`, or the
 * package `@webgpu/types`.
 */

export { GpuRouter, type BoundRouter, type GpuRouterOptions, type RouterBuffers } from '../kernels/gpu-router.ts';
export type { RoutedLogits } from '../kernels/router/router-run.ts';
export type { ExpertGroups, RouterScoring, RoutingFunction } from '../contract/config.ts';
export { routingFunction } from '../kernels/router/routing-function.ts';

// The reference, and how near to it a device must be.
export { routeRow, type RoutedRow } from '../kernels/router/reference/router-reference.ts';
export { countWrongIds, marginsOf, WEIGHT_TOLERANCE } from '../kernels/router/router-check.ts';
