/**
 * The laws of the engine core (L1, L2, L3, L4, L5, L7, L8) over random schedules: whatever is preempted, aborted, reset
 * or lost, in whatever order the worker answers and however many steps are under way, every request gets exactly the
 * tokens and rows that its prefix determines, blocks and requests are conserved at every moment, and nothing is left
 * after the drain.
 */

import { expect, test } from 'vitest';
import type { EngineConfig } from '../../src/contract/config.ts';
import type { EngineCoreOutput, FinishReason } from '../../src/contract/engine-core-output.ts';
import type { ModelRunnerOutput } from '../../src/contract/model-runner-output.ts';
import type { EngineRequest } from '../../src/contract/request.ts';
import { RoutedExpertsError } from '../../src/contract/errors.ts';
import { EngineCore } from '../../src/engine/engine-core.ts';
import { FakeWorker, oracleNextToken, oracleRow, randomFrom } from './fake-worker.ts';
import { RowKeeper } from './row-keeper.ts';

/** `expect` costs more than a step; this runs millions of times. */
const must = (actual: unknown, expected: unknown, what: string): void => {
  if (actual !== expected) throw new Error(`${what}: expected ${String(expected)}, got ${String(actual)}`);
};

type Sent = {
  request: EngineRequest;
  tokens: number[];
  finish: FinishReason | null;
  outputs: number;
  mayMiss: boolean;
};

const totals = {
  preemptions: 0,
  hits: 0,
  resets: 0,
  losses: 0,
  aborts: 0,
  stops: 0,
  refusals: 0,
  finished: 0,
  rows: 0,
  missing: 0,
};

class Run {
  readonly #random: () => number;
  readonly #config: EngineConfig;
  readonly #depth: number;
  readonly #keeper: RowKeeper | null;
  readonly #sharesHits: boolean;
  readonly #engine: EngineCore;
  readonly #sent = new Map<string, Sent>();
  readonly #inFlight: ModelRunnerOutput[] = [];
  readonly #prefixes: number[][];
  #worker: FakeWorker;
  #numSent = 0;

  constructor(seed: number) {
    const random = randomFrom(seed);
    this.#random = random;
    const maxModelLen = this.#int(12, 48);
    const isAsync = this.#chance(0.6);
    const enableChunkedPrefill = this.#chance(0.8);
    this.#config = {
      blockSize: this.#int(1, 8),
      numBlocks: this.#int(4, 30),
      maxNumSeqs: this.#int(1, 7),
      maxNumBatchedTokens: enableChunkedPrefill ? this.#int(1, 32) : maxModelLen,
      maxModelLen,
      policy: this.#chance(0.5) ? 'fcfs' : 'priority',
      asyncScheduling: isAsync,
      enablePrefixCaching: this.#chance(0.8),
      enableChunkedPrefill,
      longPrefillTokenThreshold: this.#chance(0.25) ? this.#int(1, 6) : 0,
      reserveFullIsl: this.#chance(0.5),
      watermark: this.#chance(0.2) ? 0.15 : 0,
      numSpeculativeTokens: this.#chance(0.4) ? this.#int(1, 3) : 0,
    };
    this.#depth = this.#int(1, 3);
    this.#keeper = this.#chance(0.9) ? new RowKeeper() : null;
    this.#sharesHits = this.#chance(0.3);
    if (this.#keeper !== null && !this.#sharesHits) this.#keeper.keeps = () => false;
    this.#engine = new EngineCore(this.#config, this.#keeper);
    this.#worker = new FakeWorker(this.#config, random);
    this.#prefixes = Array.from({ length: 3 }, () => Array.from({ length: this.#int(1, 24) }, () => this.#int(0, 10)));
  }

  #int(least: number, most: number): number {
    return least + Math.floor(this.#random() * (most - least + 1));
  }

  #chance(share: number): boolean {
    return this.#random() < share;
  }

  run(): void {
    const numActions = this.#int(20, 160);
    for (let i = 0; i < numActions; i += 1) {
      this.#act();
      this.#engine.checkIntegrity();
      this.#conserve();
    }
    this.#drain();
  }

  #act(): void {
    const dice = this.#random();
    if (dice < 0.2) this.#send();
    else if (dice < 0.24) this.#abort();
    else if (dice < 0.255) {
      if (this.#engine.resetPrefixCache({ resetRunning: this.#chance(0.7) })) totals.resets += 1;
    } else if (dice < 0.265) this.#loseWorkers();
    else if (this.#inFlight.length === this.#depth || dice < 0.4) this.#finish();
    else if (!this.#begin() && this.#inFlight.length > 0) this.#finish();
  }

  #send(): void {
    const prefix = this.#prefixes[this.#int(0, 2)]!;
    const tail = Array.from({ length: this.#int(0, 6) }, () => this.#int(0, 10));
    const prompt = [...prefix.slice(0, this.#int(1, prefix.length)), ...tail];
    const maxTokens = this.#int(1, 10);
    const request: EngineRequest = {
      requestId: `r${this.#numSent}`,
      promptTokenIds: Uint32Array.from(prompt),
      sampling: {
        maxTokens,
        minTokens: this.#chance(0.3) ? this.#int(0, maxTokens) : 0,
        eosTokenId: this.#chance(0.2) ? 3 : null,
        stopTokenIds: this.#chance(0.2) ? [5, 7] : [],
        returnRoutedExperts: this.#keeper !== null && this.#chance(0.7),
        routedExpertsPromptStart: this.#chance(0.3) ? this.#int(0, prompt.length - 1) : 0,
      },
      priority: this.#int(0, 2),
      arrivalTime: this.#int(0, 5),
      cacheSalt: this.#chance(0.2) ? 'salt' : null,
    };
    this.#numSent += 1;
    const before = this.#engine.stats();
    try {
      this.#engine.addRequest(request);
      this.#sent.set(request.requestId, { request, tokens: [], finish: null, outputs: 0, mayMiss: this.#sharesHits });
    } catch (error) {
      if (!(error instanceof RoutedExpertsError)) throw error;
      expect(['PROMPT_TOO_LONG', 'EXCEEDS_POOL']).toContain(error.code);
      expect(this.#engine.stats()).toEqual(before);
      totals.refusals += 1;
    }
  }

  #abort(): void {
    const ids = [...this.#sent.keys()];
    const chosen = ids.filter(() => this.#chance(0.15));
    const alive = chosen.filter((id) => this.#sent.get(id)!.finish === null);
    const outputs = this.#engine.abort([...chosen, 'nobody', ...chosen]);
    expect(outputs.map(({ requestId }) => requestId)).toEqual(alive);
    this.#receive(outputs);
    totals.aborts += outputs.length;
  }

  #loseWorkers(): void {
    this.#inFlight.length = 0;
    this.#worker = new FakeWorker(this.#config, this.#random);
    this.#engine.onWorkersLost();
    const { numRunning, numUsedBlocks, numCachedBlocks, numStepsInFlight } = this.#engine.stats();
    expect([numRunning, numUsedBlocks, numCachedBlocks, numStepsInFlight]).toEqual([0, 0, 0, 0]);
    totals.losses += 1;
  }

  #begin(): boolean {
    const step = this.#engine.beginStep();
    if (step === null) return false;
    must(step.totalNumScheduledTokens <= this.#config.maxNumBatchedTokens, true, 'the step keeps to its budget');
    const numTokens = step.numScheduledTokens.subarray(0, step.numRequests).reduce((sum, n) => sum + n, 0);
    must(step.totalNumScheduledTokens, numTokens, 'tokens of the step');
    must(step.numRequests <= this.#config.maxNumSeqs, true, 'the step keeps to maxNumSeqs');
    this.#inFlight.push(this.#worker.execute(step));
    return true;
  }

  #finish(): void {
    const output = this.#inFlight.shift();
    if (output !== undefined) this.#receive(this.#engine.finishStep(output));
  }

  #receive(outputs: readonly EngineCoreOutput[]): void {
    for (const output of outputs) {
      const sent = this.#sent.get(output.requestId)!;
      must(sent.finish, null, `${output.requestId} was answered after its end`);
      must(output.newTokenIds.length > 0 || output.finishReason === 'abort', true, 'an output says something');
      sent.tokens.push(...output.newTokenIds);
      sent.finish = output.finishReason;
      sent.outputs += 1;
      if (output.finishReason !== null) this.#check(sent, output);
    }
  }

  #check(sent: Sent, output: EngineCoreOutput): void {
    const { sampling, promptTokenIds } = sent.request;
    const expected = [...promptTokenIds];
    let finish: FinishReason | null = null;
    let stopReason: number | null = null;
    while (finish === null) {
      const token = oracleNextToken(expected);
      expected.push(token);
      const numOutputs = expected.length - promptTokenIds.length;
      if (numOutputs >= sampling.minTokens && token === sampling.eosTokenId) finish = 'stop';
      else if (numOutputs >= sampling.minTokens && sampling.stopTokenIds.includes(token)) {
        finish = 'stop';
        stopReason = token;
      } else if (numOutputs >= sampling.maxTokens || expected.length >= this.#config.maxModelLen) finish = 'length';
    }
    const outputs = expected.slice(promptTokenIds.length);
    if (output.finishReason === 'abort') expect(sent.tokens).toEqual(outputs.slice(0, sent.tokens.length));
    else {
      expect(sent.tokens).toEqual(outputs);
      expect(output.finishReason).toBe(finish);
      expect(output.stopReason).toBe(stopReason);
      totals.finished += 1;
      if (finish === 'stop') totals.stops += 1;
    }
    expect(output.prefill!.numPromptTokens).toBe(promptTokenIds.length);
    this.#checkRows(sent, output, [...promptTokenIds, ...sent.tokens]);
  }

  #checkRows(sent: Sent, output: EngineCoreOutput, tokens: readonly number[]): void {
    const { sampling, promptTokenIds } = sent.request;
    if (!sampling.returnRoutedExperts) {
      expect(output.routedExperts).toBeNull();
      return;
    }
    const rows = output.routedExperts!;
    const start = sampling.routedExpertsPromptStart;
    expect(rows.count).toBe(Math.max(0, promptTokenIds.length + sent.tokens.length - 1 - start));
    const isMissing = (p: number): boolean => rows.missing.some(([from, to]) => p >= from && p < to);
    for (let p = start; p < start + rows.count; p += 1) {
      if (isMissing(p)) totals.missing += 1;
      else {
        must(rows.chunks[0]![p], oracleRow(tokens, p), `row ${p} of ${output.requestId}`);
        totals.rows += 1;
      }
    }
    if (output.finishReason !== 'abort' && !sent.mayMiss) expect(rows.missing).toEqual([]);
  }

  #conserve(): void {
    const stats = this.#engine.stats();
    const alive = [...this.#sent.values()].filter(({ finish }) => finish === null).length;
    must(stats.numWaiting + stats.numRunning, alive, 'requests alive');
    must(stats.numFreeBlocks + stats.numUsedBlocks, this.#config.numBlocks - 1, 'blocks');
    must(stats.numStepsInFlight, this.#inFlight.length, 'steps in flight');
  }

  #drain(): void {
    let numIdle = 0;
    for (let i = 0; !this.#engine.isIdle; i += 1) {
      if (i > 5000) throw new Error('the engine does not come to an end');
      const progressed = this.#inFlight.length < this.#depth && this.#begin();
      if (!progressed && this.#inFlight.length === 0) numIdle += 1;
      if (numIdle > 0) throw new Error('requests are left, but nothing runs');
      if (this.#inFlight.length === this.#depth || !progressed) this.#finish();
      this.#engine.checkIntegrity();
      this.#conserve();
    }
    expect([...this.#sent.values()].filter(({ finish }) => finish === null)).toEqual([]);
    const stats = this.#engine.stats();
    expect(stats.numUsedBlocks).toBe(0);
    expect(stats.capture ?? { requests: 0, bytes: 0 }).toEqual({ requests: 0, bytes: 0 });
    expect(this.#worker.batch.size, 'worker entries that nobody took back').toBe(0);
    if (this.#keeper !== null) {
      const someoneAsked = [...this.#sent.values()].some(({ request }) => request.sampling.returnRoutedExperts);
      if (!someoneAsked) expect(this.#keeper.calls.every((call) => call.startsWith('wants'))).toBe(true);
    }
    totals.preemptions += stats.numPreemptions;
    totals.hits += stats.numPrefixHitTokens;
  }
}

const NUM_SEEDS = 1000;

test(`every law holds over ${NUM_SEEDS} random schedules`, () => {
  for (let seed = 1; seed <= NUM_SEEDS; seed += 1) {
    try {
      new Run(seed).run();
    } catch (error) {
      throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
    }
  }
  // The schedules are worth something only if they went where it hurts.
  for (const [name, count] of Object.entries(totals)) expect(count, `${name} never happened`).toBeGreaterThan(50);
});
