/**
 * The least engine that can drive a `ForwardPass` through everything a real one does to it: prefill in chunks, decode,
 * blocks shared between requests, lost KV with recomputation in other blocks, drafts. It chooses at random, from a
 * seed, and checks every token and every row against the oracle, step by step.
 */

import type { EngineConfig, ModelConfig } from '../../src/contract/config.ts';
import type { Device, DeviceBuffer } from '../../src/contract/device.ts';
import { ForwardPass } from '../../src/kernels/model/forward-pass.ts';
import type { KernelSetFactory } from '../../src/kernels/model/kernel-set.ts';
import { DRAFT_ACCEPTANCE_RATE } from '../../src/kernels/model/kernel-shape.ts';
import { Oracle, oracle } from '../../src/kernels/model/oracle.ts';
import { Router } from '../../src/kernels/model/route/route.ts';
import { FROM_DEVICE, StepInput } from '../../src/kernels/model/step-input.ts';
import { expectSame, randomNumbers, wordsOf } from './harness.ts';

type Request = {
  batchSlot: number;
  tokens: number[];
  promptLength: number;
  /** Tokens whose KV is computed. */
  computed: number;
  /** Blocks, of which the first `shared` belong to somebody else. */
  blocks: number[];
  shared: number;
  drafts: number[];
  /** Blocks that the device's table does not have yet. */
  firstNewBlock: number;
};

type Scheduled = { request: Request; start: number; count: number; drafts: number[]; row: number; samples: boolean };

export class ToyEngine {
  readonly #random: (below: number) => number;
  readonly #model: ModelConfig;
  readonly #router: Router;
  readonly #engine: EngineConfig;
  readonly #device: Device;
  readonly #pass: ForwardPass;
  readonly #input: StepInput;
  readonly #readback: DeviceBuffer;
  readonly #free: number[];
  #requests: Request[] = [];
  accepted = 0;
  rejected = 0;
  /** Drafts that the device proposed, and of these right ones, whether they were verified or not. */
  proposed = 0;
  right = 0;
  rows = 0;
  preemptions = 0;
  shares = 0;

  private constructor(device: Device, model: ModelConfig, engine: EngineConfig, pass: ForwardPass, seed: number) {
    this.#device = device;
    this.#model = model;
    this.#router = new Router(model);
    this.#engine = engine;
    this.#pass = pass;
    this.#random = randomNumbers(seed);
    this.#input = new StepInput(pass.shape);
    const bytes = engine.maxNumBatchedTokens * model.numLayers * model.topK * 4;
    this.#readback = device.createBuffer('step', pass.sampledLayout.byteLength(engine.maxNumSeqs) + bytes, 'readback');
    this.#free = Array.from({ length: engine.numBlocks - 1 }, (_, i) => i + 1);
  }

  static async create(
    device: Device,
    model: ModelConfig,
    engine: EngineConfig,
    kernels: KernelSetFactory,
    seed: number,
    draftAcceptanceRate: number = DRAFT_ACCEPTANCE_RATE,
  ): Promise<ToyEngine> {
    const options = { model, engine, ballastMs: 0, draftAcceptanceRate, kernels };
    const pass = await ForwardPass.create(device, options);
    return new ToyEngine(device, model, engine, pass, seed);
  }

  async run(numSteps: number): Promise<void> {
    for (let step = 0; step < numSteps; step++) {
      if (this.#random(3) === 0) this.#admit();
      if (this.#random(8) === 0) this.#preempt();
      await this.#step();
      this.#requests = this.#requests.filter((request) => {
        const ends = request.tokens.length >= request.promptLength + 12 && request.computed >= request.promptLength;
        if (ends) this.#release(request);
        return !ends;
      });
    }
  }

  #admit(): void {
    const taken = new Set(this.#requests.map(({ batchSlot }) => batchSlot));
    const batchSlot = Array.from({ length: this.#engine.maxNumSeqs }, (_, i) => i).find((slot) => !taken.has(slot));
    if (batchSlot === undefined) return;
    const parent = this.#random(2) === 0 ? this.#requests[this.#random(this.#requests.length)] : undefined;
    const { blockSize } = this.#engine;
    const shared = parent === undefined || parent.shared > 0 ? 0 : Math.floor((parent.promptLength - 1) / blockSize);
    const tokens = Array.from({ length: 1 + this.#random(40) }, () => this.#random(this.#model.vocabSize));
    const request: Request = {
      batchSlot,
      tokens,
      promptLength: tokens.length,
      computed: 0,
      blocks: [],
      shared: 0,
      drafts: [],
      firstNewBlock: 0,
    };
    if (parent !== undefined && shared > 0 && parent.blocks.length >= shared) {
      request.tokens = [...parent.tokens.slice(0, shared * blockSize), ...tokens].slice(0, 60);
      request.promptLength = request.tokens.length;
      request.shared = shared;
      request.blocks = parent.blocks.slice(0, shared);
      request.computed = Math.min(parent.computed, shared * blockSize, request.promptLength - 1);
      this.shares += 1;
    }
    this.#requests.push(request);
  }

  /** Takes a request's blocks away; it computes everything again, elsewhere. Requests that share them go with it. */
  #preempt(): void {
    const victim = this.#requests[this.#random(Math.max(1, this.#requests.length))];
    if (victim === undefined) return;
    for (const request of this.#requests) {
      if (request !== victim && (request.shared === 0 || request.blocks[0] !== victim.blocks[0])) continue;
      this.#release(request);
      this.preemptions += 1;
    }
  }

  #release(request: Request): void {
    this.#requests.forEach((other) => {
      if (other === request || other.shared === 0 || other.blocks[0] !== request.blocks[0]) return;
      this.#free.push(...other.blocks.slice(other.shared));
      other.blocks = [];
      other.shared = 0;
      other.computed = 0;
      other.drafts = [];
      other.firstNewBlock = 0;
    });
    const own = request.blocks.slice(request.shared);
    for (const block of own) this.#free.splice(this.#random(this.#free.length + 1), 0, block);
    request.blocks = [];
    request.shared = 0;
    request.computed = 0;
    request.drafts = [];
    request.firstNewBlock = 0;
  }

  #schedule(): Scheduled[] {
    let budget = this.#engine.maxNumBatchedTokens;
    const scheduled: Scheduled[] = [];
    for (const request of this.#requests) {
      const known = request.tokens.length - request.computed;
      const drafts = known === 1 && request.computed >= request.promptLength - 1 ? request.drafts : [];
      const wanted = known === 1 ? 1 + drafts.length : 1 + this.#random(known);
      const count = Math.min(wanted, budget);
      if (count < 1 || count < 1 + (known === 1 ? drafts.length : 0)) continue;
      const end = request.computed + count;
      const numBlocks = Math.ceil(end / this.#engine.blockSize);
      if (numBlocks - request.blocks.length > this.#free.length) continue;
      while (request.blocks.length < numBlocks) request.blocks.push(this.#free.shift()!);
      budget -= count;
      const samples = end >= request.tokens.length;
      scheduled.push({ request, start: request.computed, count, drafts, row: 0, samples });
      request.computed = end;
    }
    return scheduled;
  }

  #fill(scheduled: Scheduled[]): void {
    const { blockSize } = this.#engine;
    const input = this.#input;
    const updates = scheduled.reduce((n, { request }) => n + request.blocks.length - request.firstNewBlock, 0);
    input.begin(
      scheduled.reduce((n, { count }) => n + count, 0),
      scheduled.length,
      updates,
    );
    for (const item of scheduled) {
      const { request, start, count, drafts, samples } = item;
      item.row = input.addRequest(request.batchSlot, start, count, drafts.length, samples);
      for (let i = 0; i < count; i++) {
        const position = start + i;
        const isDraft = i >= count - drafts.length;
        const isSampled = position >= request.promptLength && position === request.tokens.length - 1;
        const known = isDraft ? drafts[i - count + drafts.length]! : request.tokens[position]!;
        input.setToken(item.row + i, (isDraft || isSampled) && this.#random(2) === 0 ? FROM_DEVICE : known);
        input.setSlot(
          item.row + i,
          request.blocks[Math.floor(position / blockSize)]! * blockSize + (position % blockSize),
        );
      }
      request.blocks.slice(request.firstNewBlock).forEach((block, i) => {
        input.addTableUpdate(request.batchSlot, request.firstNewBlock + i, block);
      });
      request.firstNewBlock = request.blocks.length;
    }
    input.end();
  }

  async #step(): Promise<void> {
    const scheduled = this.#schedule();
    if (scheduled.length === 0) return;
    this.#fill(scheduled);
    const layout = this.#pass.sampledLayout;
    const sampledBytes = layout.byteLength(scheduled.length);
    const rowBytes = this.#input.numTokens * this.#model.numLayers * this.#model.topK * 4;
    this.#pass.upload(this.#input);
    this.#device.submit((commands) => {
      this.#pass.record(commands, this.#input);
      commands.copy(this.#pass.sampled, 0, this.#readback, 0, sampledBytes);
      commands.copy(this.#pass.routedExperts, 0, this.#readback, sampledBytes, rowBytes);
    });
    await this.#device.read(this.#readback, sampledBytes + rowBytes, (bytes) => {
      const words = wordsOf(bytes);
      scheduled.forEach((item, i) => this.#check(item, words, i, sampledBytes / 4));
    });
  }

  /** The next `count` tokens. */
  #continuation(tokens: readonly number[], count: number): number[] {
    const sequence = new Oracle(this.#router);
    let next = 0;
    for (const token of tokens) next = sequence.push(token);
    return Array.from({ length: count }, () => {
      const token = next;
      next = sequence.push(token);
      return token;
    });
  }

  /** Takes the step's tokens, and compares rows and tokens with the oracle. */
  #check(item: Scheduled, words: Uint32Array, ordinal: number, rowsAt: number): void {
    const { request, start, count, drafts } = item;
    const layout = this.#pass.sampledLayout;
    const inputs = [...request.tokens.slice(0, start + count - drafts.length), ...drafts];
    const expected = oracle(this.#model, inputs);
    const rowLength = this.#model.numLayers * this.#model.topK;
    const rows = words.subarray(rowsAt + item.row * rowLength, rowsAt + (item.row + count) * rowLength);
    expectSame(rows, expected.rows.subarray(start * rowLength, (start + count) * rowLength), `rows from ${start}`);
    this.rows += count;

    const numSampled = words[layout.tokensAt(ordinal) - 1]!;
    if (!item.samples) {
      expectSame([numSampled], [0], 'tokens sampled in the middle of a prompt');
      return;
    }
    const first = start + count - 1 - drafts.length;
    let accepted = 0;
    while (accepted < drafts.length && drafts[accepted] === expected.nextTokens[first + accepted]) accepted += 1;
    const tokens = words.subarray(layout.tokensAt(ordinal), layout.tokensAt(ordinal) + numSampled);
    expectSame(tokens, expected.nextTokens.subarray(first, first + accepted + 1), `tokens after ${first}`);
    this.accepted += accepted;
    this.rejected += drafts.length - accepted;
    request.tokens.push(...tokens);
    request.computed = first + accepted + 1;
    const { numSpeculativeTokens } = layout;
    const proposals = words.subarray(layout.draftsAt(ordinal), layout.draftsAt(ordinal) + numSpeculativeTokens);
    this.proposed += numSpeculativeTokens;
    const next = this.#continuation(request.tokens, numSpeculativeTokens);
    this.right += proposals.reduce((sum, draft, d) => sum + (draft === next[d] ? 1 : 0), 0);
    const keep = this.#random(numSpeculativeTokens + 1);
    request.drafts = [...proposals.subarray(0, keep)];
  }
}
