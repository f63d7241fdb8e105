/** A router kernel on a WebGPU device that the caller has, in Node or in a browser: logits in, ids and weights out. */

import type { RoutingFunction } from '../contract/config.ts';
import type { Device, DeviceBuffer } from '../contract/device.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import { WebGpuDevice } from './device/webgpu-device.ts';
import { BufferUsage } from './device/webgpu-flags.ts';
import { webGpuInfo } from './device/webgpu-info.ts';
import { type WebGpuBound, WebGpuBuffer } from './device/webgpu-resources.ts';
import { routerKernel, routerParams, routerWorkgroups } from './router/router-kernels.ts';
import { checkBias, runRouter, wordsOf, type RoutedLogits } from './router/router-run.ts';
import { chooseRouter, type RouterVariant } from './router/router-variant.ts';
import { routingFunction } from './router/routing-function.ts';

/** What a router is made for, beside its function. */
export type GpuRouterOptions = Readonly<{
  /** Rows of a call, about: the kernel is chosen for so many, and is right for any number. Default 1024. */
  numTokens?: number;
  /** `[E]` finite numbers, added to each expert's score for selection; if, and only if, `hasSelectionBias`. */
  selectionBias?: Float32Array;
}>;

/** Buffers of the caller's, with usage STORAGE; bound from their first byte on. T is the number of rows. */
export type RouterBuffers = Readonly<{
  /** f32 `[T, E]`: read. */
  logits: GPUBuffer;
  /** u32 `[T, K]`: written, the best expert of each row first. */
  ids: GPUBuffer;
  /** f32 `[T, K]`: written, the weight of each id. */
  weights: GPUBuffer;
}>;

/** A kernel with its buffers: encoded as often as wanted. */
export type BoundRouter = Readonly<{
  /** Adds the dispatch to a compute pass. */
  encode: (pass: GPUComputePassEncoder) => void;
  /** Frees the eight bytes that are its own. Only after the work that it was encoded into is done. */
  destroy: () => void;
}>;

const DEFAULT_NUM_TOKENS = 1024;

/**
 * Selects as the function says, ties by the lower id. Ids are exact where selection compares logits; where it compares
 * scores, those of two experts that lie within 4e-6 of each other may be taken either way. Weights are within 1e-5.
 */
export class GpuRouter {
  /** Complete: with every default. */
  readonly routingFunction: RoutingFunction;
  /** e.g. `router/e128-k8-softmax-norm-subgroup-l8-m4-q4`. */
  readonly kernelName: string;
  readonly #gpu: GPUDevice;
  readonly #device: Device;
  readonly #variant: RouterVariant;
  readonly #bias: Float32Array | null;
  readonly #biasBuffer: DeviceBuffer;

  /**
   * Compiles at the first use. Asks for `subgroups` if the device was requested with that feature, and does without if
   * not.
   *
   * @throws BAD_VALUE or UNKNOWN_NAME for a function that cannot be, BAD_VALUE for a bias that does not fit it
   */
  constructor(
    gpu: GPUDevice,
    given: Pick<RoutingFunction, 'numExperts' | 'topK'> & Partial<RoutingFunction>,
    { numTokens = DEFAULT_NUM_TOKENS, selectionBias }: GpuRouterOptions = {},
  ) {
    this.routingFunction = routingFunction(given);
    this.#bias = selectionBias ?? null;
    checkBias(this.routingFunction, this.#bias);
    this.#gpu = gpu;
    this.#device = new WebGpuDevice(gpu, webGpuInfo(gpu), null);
    this.#variant = chooseRouter(this.routingFunction, this.#device.info, numTokens);
    this.kernelName = routerKernel(this.routingFunction, this.#variant).name;
    const bias = this.#bias === null ? new Uint32Array(1) : wordsOf(this.#bias);
    this.#biasBuffer = this.#device.createBuffer('selectionBias', bias.byteLength, 'storage');
    this.#device.write(this.#biasBuffer, 0, bias);
  }

  /**
   * Binds buffers for `numTokens` rows. Buffers that are bound by several calls need nothing special; each call has its
   * own number of rows.
   *
   * @throws BAD_VALUE for a buffer that is too small or has no usage STORAGE, DEVICE_LOST
   */
  async bind(buffers: RouterBuffers, numTokens: number): Promise<BoundRouter> {
    const { numExperts, topK } = this.routingFunction;
    if (!Number.isInteger(numTokens) || numTokens < 1) {
      throw RoutedExpertsError.of('BAD_VALUE', 'numTokens', numTokens, 'a whole number, 1 at least');
    }
    const held = (name: keyof RouterBuffers, width: number): DeviceBuffer =>
      borrowed(name, buffers[name], 4 * numTokens * width, this.#gpu.limits.maxStorageBufferBindingSize);
    const given = [held('logits', numExperts), held('ids', topK), held('weights', topK)];
    const params = this.#device.createBuffer('params', 8, 'storage');
    this.#device.write(params, 0, routerParams(numTokens, this.#bias));
    const kernel = routerKernel(this.routingFunction, this.#variant);
    const { pipeline, group } = (await this.#device.bind(kernel, [params, ...given, this.#biasBuffer])) as WebGpuBound;
    const workgroups = routerWorkgroups(this.#variant, numTokens);
    return {
      encode: (pass) => {
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, group);
        pass.dispatchWorkgroups(workgroups);
      },
      destroy: () => params.destroy(),
    };
  }

  /**
   * Routes rows that are on the host: `logits` is f32 `[T, E]`. For tests and small work; a model binds its buffers.
   *
   * @throws BAD_VALUE for a length that is no whole number of rows or more than the device can bind, DEVICE_LOST
   */
  route(logits: Float32Array): Promise<RoutedLogits> {
    return runRouter(this.#device, this.routingFunction, this.#variant, logits, this.#bias);
  }

  /** Frees what is the router's own, once no `route` is under way; the device stays. */
  destroy(): Promise<void> {
    return this.#device.destroy();
  }
}

function borrowed(name: string, buffer: GPUBuffer, byteLength: number, limit: number): DeviceBuffer {
  const problem = (value: unknown, wanted: string): Error =>
    RoutedExpertsError.of('BAD_VALUE', `${name} of the router`, value, wanted);
  if (buffer.size < byteLength || buffer.size > limit) {
    throw problem(`a buffer of ${buffer.size} bytes`, `one of ${byteLength} to ${limit}`);
  }
  if ((buffer.usage & BufferUsage.STORAGE) === 0) throw problem('no storage buffer', 'one with usage STORAGE');
  return new WebGpuBuffer(buffer, () => undefined);
}
