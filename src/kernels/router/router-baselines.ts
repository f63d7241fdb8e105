/**
 * What others do in WGSL, written from descriptions, for the bench's table: a bitonic argsort of the whole row, an
 * invocation a row, a bubble sort with a barrier per compare. They select by the logit and renormalise a softmax; they
 * are exact, too.
 */

import type { Kernel, KernelAccess } from '../../contract/device.ts';
import type { RoutingFunction } from '../../contract/config.ts';
import { selectsByLogit } from './routing-function.ts';
import { assembleRouter } from './router-kernels.ts';
import { wgslModule } from './wgsl-module.ts';

export type BaselineName = 'bitonic' | 'thread' | 'bubble';

export const BASELINES: readonly BaselineName[] = ['bitonic', 'thread', 'bubble'];

/** The baseline, or `null` for a function that it does not know. `rows`: of one workgroup. */
export function baselineKernel(
  router: RoutingFunction,
  name: BaselineName,
): Readonly<{ kernel: Kernel; rows: number }> | null {
  const isPlain = router.scoring === 'softmax' && router.renormalize && router.groups === null;
  if (!isPlain || !selectsByLogit(router)) return null;
  const padded = 2 ** Math.ceil(Math.log2(Math.max(2, router.numExperts)));
  const threads = name === 'thread' ? 64 : Math.max(32, Math.min(256, padded / 2));
  const files =
    name === 'thread' ? ['baseline/baseline-thread'] : ['baseline/baseline-finish', `baseline/baseline-${name}`];
  const constants: Record<string, number> =
    name === 'thread' ? { GUARDED: 0, THREADS: threads } : { GUARDED: 0, THREADS: threads, PADDED: padded };
  const kernel = assembleRouter(router, {
    name: `baseline-${name}`,
    files: files.map((file) => `router/wgsl/${file}`),
    constants,
  });
  return { kernel, rows: name === 'thread' ? threads : 1 };
}

/** Writes `[quads, seed]`'s near-normal logits: params, target. */
export const fillKernel: Kernel = benchKernel('fill', ['read', 'read-write']);

/** Copies `[quads]`: params, source, target. */
export const copyKernel: Kernel = benchKernel('copy', ['read', 'read', 'read-write']);

/** Does nothing, to a target that it could write. */
export const emptyKernel: Kernel = benchKernel('empty', ['read-write']);

function benchKernel(name: string, bindings: readonly KernelAccess[]): Kernel {
  return {
    name: `router/${name}`,
    wgsl: wgslModule(['model/mix/mix', `router/wgsl/baseline/${name}`], { THREADS: 256 }),
    bindings,
    requires: [],
    reference: () => {
      throw new Error('a kernel of the bench alone, without a reference');
    },
  };
}
