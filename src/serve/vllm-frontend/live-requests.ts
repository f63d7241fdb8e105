/** The requests of frontends that the engine has, and what the wire wants to know of each beside its outputs. */

import type { WithLayers } from '../../capture/row-layers.ts';
import type { EngineCoreOutput } from '../../contract/engine-core-output.ts';
import type { TransferAnswer } from '../kv/transfer-params.ts';
import type { AddRequest } from './wire/add-request.ts';
import type { FirstTimes, WireOutput } from './wire/output-message.ts';
import type { TokenLogprobs } from './wire/wire-logprobs.ts';

/**
 * Made-up log probabilities: a function of the tokens before a position and of the token there. The first of its
 * tokens is that token, then come the `numTop` most likely ones.
 */
export type LogprobSource = (prefix: readonly number[], token: number, numTop: number) => TokenLogprobs;

export class LiveRequest {
  readonly add: AddRequest;
  readonly #queuedAt: number;
  readonly #logprobs: LogprobSource | null;
  readonly #withLayers: WithLayers;
  /** Prompt and outputs, where log probabilities are wanted. */
  readonly #tokens: number[] | null;
  #isFirst = true;
  /** Its client has aborted it: nobody waits for its end. */
  isDropped = false;

  /** Times in seconds. */
  constructor(
    add: AddRequest,
    queuedAt: number,
    { logprobs, withLayers }: Readonly<{ logprobs: LogprobSource | null; withLayers: WithLayers }>,
  ) {
    const wantsLogprobs = logprobs !== null && (add.logprobs !== null || add.promptLogprobs !== null);
    this.add = add;
    this.#queuedAt = queuedAt;
    this.#logprobs = logprobs;
    this.#withLayers = withLayers;
    this.#tokens = wantsLogprobs ? Array.from(add.request.promptTokenIds) : null;
  }

  /** `scheduledAt`: when the step began that brought this output. */
  wireOutput(output: EngineCoreOutput, transfer: TransferAnswer | null, scheduledAt: number): WireOutput {
    const { requestId, newTokenIds, finishReason, stopReason } = output;
    const isFirst = this.#isFirst && newTokenIds.length > 0;
    if (isFirst) this.#isFirst = false;
    const isCut = finishReason === 'abort' || finishReason === 'error';
    const times: FirstTimes | null = isFirst ? { queued: this.#queuedAt, scheduled: scheduledAt } : null;
    const { logprobs: numTop, promptLogprobs } = this.add;
    return {
      requestId,
      newTokenIds,
      finishReason,
      stopReason,
      promptLogprobs: isFirst && promptLogprobs !== null ? this.#promptLogprobs(promptLogprobs) : null,
      logprobs: numTop === null ? null : this.#newLogprobs(newTokenIds, numTop),
      // A request that is cut short has no rows in vLLM.
      rows: isCut ? null : output.routedExperts && this.#withLayers(output.routedExperts),
      prefill: isFirst ? output.prefill : null,
      times,
      kvTransferParams: transfer?.params ?? null,
    };
  }

  /** The first prompt token has no prefix, and so no log probability. */
  #promptLogprobs(numTop: number): readonly TokenLogprobs[] | null {
    const tokens = this.#tokens;
    if (tokens === null) return null;
    return tokens.slice(1).map((token, i) => this.#logprobs!(tokens.slice(0, i + 1), token, numTop));
  }

  #newLogprobs(newTokenIds: readonly number[], numTop: number): readonly TokenLogprobs[] | null {
    const tokens = this.#tokens;
    if (tokens === null || newTokenIds.length === 0) return null;
    return newTokenIds.map((token) => {
      const logprobs = this.#logprobs!(tokens, token, numTop);
      tokens.push(token);
      return logprobs;
    });
  }
}
