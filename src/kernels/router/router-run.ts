/**
 * Routes rows of logits on a device: buffers in, one dispatch, ids and weights out. For verification and tests; a bench
 * binds its own.
 */

import type { Device, DeviceBuffer } from '../../contract/device.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { RoutingFunction } from '../../contract/config.ts';
import { checkSelectionBias } from './routing-function.ts';
import { routerKernel, routerParams, routerWorkgroups } from './router-kernels.ts';
import type { RouterVariant } from './router-variant.ts';

/** The choices of T rows, the best expert of each row first. */
export type RoutedLogits = Readonly<{
  /** `[T, K]` */
  ids: Uint32Array;
  /** `[T, K]` */
  weights: Float32Array;
}>;

/**
 * Routes `logits` `[T, E]`. Throws `BAD_VALUE` for a length that is no whole number of rows, a bias that does not fit,
 * or more bytes than the device can bind. `given`: params of the caller's, for tests.
 */
export async function runRouter(
  device: Device,
  router: RoutingFunction,
  variant: RouterVariant,
  logits: Float32Array,
  bias: Float32Array | null,
  given: Uint32Array | null = null,
): Promise<RoutedLogits> {
  const numTokens = logits.length / router.numExperts;
  if (!Number.isInteger(numTokens) || numTokens === 0) {
    const wanted = `rows of ${router.numExperts}, one at least`;
    throw RoutedExpertsError.of('BAD_VALUE', 'number of logits', logits.length, wanted);
  }
  checkBias(router, bias);
  const numOutputs = numTokens * router.topK;
  const buffers: DeviceBuffer[] = [];
  const storage = (label: string, words: Uint32Array | number): DeviceBuffer => {
    const buffer = device.createBuffer(label, 4 * (typeof words === 'number' ? words : words.length), 'storage');
    buffers.push(buffer);
    if (typeof words !== 'number') device.write(buffer, 0, words);
    return buffer;
  };
  try {
    const params = storage('params', given ?? routerParams(numTokens, bias));
    const input = storage('logits', wordsOf(logits));
    const selectionBias = storage('selectionBias', bias === null ? 1 : wordsOf(bias));
    const ids = storage('ids', numOutputs);
    const weights = storage('weights', numOutputs);
    const readback = device.createBuffer('routed', 8 * numOutputs, 'readback');
    buffers.push(readback);
    const bound = await device.bind(routerKernel(router, variant), [params, input, ids, weights, selectionBias]);
    device.submit((commands) => {
      commands.dispatch(bound, routerWorkgroups(variant, numTokens));
      commands.copy(ids, 0, readback, 0, 4 * numOutputs);
      commands.copy(weights, 0, readback, 4 * numOutputs, 4 * numOutputs);
    });
    return await device.read(readback, 8 * numOutputs, (bytes) => {
      const copy = bytes.slice();
      return {
        ids: new Uint32Array(copy.buffer, 0, numOutputs),
        weights: new Float32Array(copy.buffer, 4 * numOutputs),
      };
    });
  } finally {
    for (const buffer of buffers) buffer.destroy();
  }
}

/** Throws `BAD_VALUE` for a bias that the function does not have, for none where it has one, and for a wrong one. */
export function checkBias(router: RoutingFunction, bias: Float32Array | null): void {
  if (router.hasSelectionBias !== (bias !== null)) {
    throw RoutedExpertsError.of('BAD_VALUE', 'selection bias', bias, 'one if, and only if, the function has it');
  }
  if (bias !== null) checkSelectionBias(router, bias);
}

export function wordsOf(floats: Float32Array): Uint32Array {
  return new Uint32Array(floats.buffer, floats.byteOffset, floats.length);
}
