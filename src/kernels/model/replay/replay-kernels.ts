/**
 * A kernel set that replays a recording: attention as ever, rows and tokens from the table in place of the router's
 * weights.
 */

import type { Kernel, KernelAccess } from '../../../contract/device.ts';
import { RoutedExpertsError } from '../../../contract/errors.ts';
import type { RecordedRouting } from '../../../contract/recorded-routing.ts';
import type { KernelSetFactory } from '../kernel-set.ts';
import { BINDINGS, STEP_CONSTANTS, THREADS, modelShader } from '../kernel-set.ts';
import { BUCKET_WORDS, Bucket, TABLE_HEADER, replayTable, unknownExpert } from './replay-table.ts';
import { replayRoute, replaySample } from './replay.ts';
import { wgslKernels } from '../wgsl-kernels.ts';

/** stepInput, hidden, sampled, lastTokens, table: a sampler with a fifth binding is given what the router reads. */
const SAMPLE_BINDINGS: readonly KernelAccess[] = [...BINDINGS.sample, 'read'];

/**
 * `wgslKernels` with router and sampler replaced. The factory throws BAD_VALUE for a recording whose shape is not the
 * model's, and for speculative decoding, since a recording has no drafts.
 */
export function replayKernels(recording: RecordedRouting): KernelSetFactory {
  return (model, shape, info) => {
    if (shape.numSpeculativeTokens > 0) {
      const wanted = '0 with a recording, which has no drafts';
      throw RoutedExpertsError.of('BAD_VALUE', 'numSpeculativeTokens', shape.numSpeculativeTokens, wanted);
    }
    const table = replayTable(model, recording);
    const { numLayers, numExperts, topK } = shape;
    const constants = {
      ...STEP_CONSTANTS,
      TABLE_HEADER,
      BUCKET_WORDS,
      B_X: Bucket.x,
      B_Y: Bucket.y,
      B_ROW: Bucket.row,
      B_NEXT_TOKEN: Bucket.nextToken,
    };
    const routeConstants = {
      ...constants,
      NUM_LAYERS: numLayers,
      TOP_K: topK,
      UNKNOWN_EXPERT: unknownExpert(model),
    };
    const route: Kernel = {
      name: `replay-route/l${numLayers}-e${numExperts}-k${topK}`,
      wgsl: modelShader('replay/replay-route', routeConstants),
      bindings: BINDINGS.route,
      requires: [],
      reference: (b) => replayRoute(model, b[0]!, b[1]!, b[2]!, b[3]!),
    };
    const sample: Kernel = {
      name: 'replay-sample',
      wgsl: modelShader('replay/replay-sample', constants),
      bindings: SAMPLE_BINDINGS,
      requires: [],
      reference: (b) => replaySample(shape, b[0]!, b[1]!, b[2]!, b[3]!, b[4]!),
    };
    return {
      ...wgslKernels(model, shape, info),
      gate: null,
      route: { kernel: route, grid: ({ numTokens }) => [Math.ceil(numTokens / THREADS), numLayers] },
      sample: { kernel: sample, grid: ({ numRequests }) => [Math.ceil(numRequests / THREADS), 1] },
      gateWeights: () => table,
    };
  };
}
