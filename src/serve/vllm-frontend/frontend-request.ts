/** A request of a frontend that the engine has, and what the wire wants to know of it beside its outputs. */

import type { WithLayers } from '../../capture/row-layers.ts';
import type { EngineCoreOutput } from '../../contract/engine-core-output.ts';
import type { TransferAnswer } from '../kv/transfer-params.ts';
import type { AddRequest } from './wire/add-request.ts';
import type { FirstTimes, WireOutput } from './wire/output-message.ts';
import type { TokenLogprobs } from './wire/wire-logprobs.ts';

/** Made-up log probabilities of one sequence, token by token. */
export interface LogprobSequence {
  /** Of what may follow the tokens taken so far, one at least: `token` itself, then the `numTop` likeliest. */
  of(token: number, numTop: number): TokenLogprobs;
  /** Takes the next token. */
  push(token: number): void;
}

/** Begins a sequence. */
export type LogprobSource = () => LogprobSequence;

export class FrontendRequest {
  readonly add: AddRequest;
  readonly #queuedAt: number;
  readonly #logprobs: LogprobSequence | null;
  readonly #withLayers: WithLayers;
  #isFirst = true;
  /** Its client has aborted it: nobody waits for its end. */
  isDropped = false;

  /** Times in seconds. */
  constructor(
    add: AddRequest,
    queuedAt: number,
    { logprobs, withLayers }: Readonly<{ logprobs: LogprobSource; withLayers: WithLayers }>,
  ) {
    const wantsLogprobs = add.logprobs !== null || add.promptLogprobs !== null;
    this.add = add;
    this.#queuedAt = queuedAt;
    this.#logprobs = wantsLogprobs ? logprobs() : null;
    this.#withLayers = withLayers;
  }

  /** `scheduledAt`: when the step began that brought this output. */
  wireOutput(output: EngineCoreOutput, transfer: TransferAnswer | null, scheduledAt: number): WireOutput {
    const { requestId, newTokenIds, finishReason, stopReason } = output;
    const isFirst = this.#isFirst && newTokenIds.length > 0;
    if (isFirst) this.#isFirst = false;
    const isCut = finishReason === 'abort' || finishReason === 'error';
    const times: FirstTimes | null = isFirst ? { queued: this.#queuedAt, scheduled: scheduledAt } : null;
    return {
      requestId,
      newTokenIds,
      finishReason,
      stopReason,
      promptLogprobs: isFirst ? this.#promptLogprobs() : null,
      logprobs: this.#newLogprobs(newTokenIds),
      // A request that is cut short has no rows in vLLM.
      rows: isCut ? null : output.routedExperts && this.#withLayers(output.routedExperts),
      prefill: isFirst ? output.prefill : null,
      times,
      kvTransferParams: transfer?.params ?? null,
    };
  }

  /** Takes the prompt. Its first token follows nothing, and has no log probability. */
  #promptLogprobs(): readonly TokenLogprobs[] | null {
    const sequence = this.#logprobs;
    if (sequence === null) return null;
    const { request, promptLogprobs: numTop } = this.add;
    const positions: TokenLogprobs[] = [];
    for (const [i, token] of request.promptTokenIds.entries()) {
      if (i > 0 && numTop !== null) positions.push(sequence.of(token, numTop));
      sequence.push(token);
    }
    return numTop === null ? null : positions;
  }

  #newLogprobs(newTokenIds: readonly number[]): readonly TokenLogprobs[] | null {
    const sequence = this.#logprobs;
    const { logprobs: numTop } = this.add;
    if (sequence === null || numTop === null || newTokenIds.length === 0) return null;
    return newTokenIds.map((token) => {
      const logprobs = sequence.of(token, numTop);
      sequence.push(token);
      return logprobs;
    });
  }
}
