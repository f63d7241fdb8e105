/**
 * host-cache, engine half: that of the RFC's `deltas`, which appends what comes and joins it when the request ends. The
 * designs differ in the worker, which keeps the rows here and sends them once.
 *
 * Source    vllm#39917 (RFC #39701), in release 0.21.0 only; reverted by #42434.
 * Store     The worker has one host cache per request. The source keeps int16. Ours keeps `uint8` for up to 256
 *           experts, else `uint16`. This half holds the rows of requests that are about to end.
 * Key       (request, absolute position).
 * Leaves    All rows leave with the output of the step in which the *worker* takes the request to end.
 * Gives up  Rows of a request that ends otherwise than by length: at EOS, at a stop token, by an abort.
 *           Rows of tokens that another request's cached block spared it.
 *           L6: the last output copies all of the request's rows at once.
 *           L9 after a cache reset: the worker does not hear that an output was thrown away.
 */

import { DeltasEngineHalf } from '../deltas/engine-half.ts';

export class HostCacheEngineHalf extends DeltasEngineHalf {
  override readonly design = 'host-cache';
  /** Rows of tokens that a block spares the worker are missing, wherever the block comes from. */
  readonly takesTierKv = true;
}
