/**
 * Holds what came out of a run against the oracle: each law, or a gap that the design declares and that explains
 * exactly this row.
 */

import type { DeclaredGap, Design } from '../../src/capture/designs.ts';
import { rowAt } from '../../src/capture/routed-rows.ts';
import type { RoutedRows } from '../../src/contract/routed-rows.ts';
import { oracle } from '../../src/kernels/model/oracle.ts';
import type { RanDesign, RanRequest } from './design-run.ts';

export type LawReport = Readonly<{
  /** Broken laws that nothing explains. */
  violations: readonly string[];
  /** Gaps that were needed to explain something. */
  used: ReadonlySet<DeclaredGap>;
  rowsChecked: number;
}>;

export function checkLaws(design: Design, ran: RanDesign): LawReport {
  const check = new LawCheck(design, ran);
  check.run();
  return { violations: check.violations, used: check.used, rowsChecked: check.rowsChecked };
}

class LawCheck {
  readonly violations: string[] = [];
  readonly used: Set<DeclaredGap> = new Set();
  rowsChecked = 0;
  readonly #design: Design;
  readonly #ran: RanDesign;

  constructor(design: Design, ran: RanDesign) {
    this.#design = design;
    this.#ran = ran;
  }

  run(): void {
    const { requests, left, isBlocking, callsWithLongCopies } = this.#ran;
    for (const request of requests) this.#checkRequest(request);
    this.#checkFreeWhenOff();
    if (isBlocking) this.#needGap('L6', 'the worker half blocks');
    if (callsWithLongCopies > 0) {
      this.#needGap('L6', `${callsWithLongCopies} calls of the engine half copied more than their step brought`);
    }
    for (const [what, count] of Object.entries(left))
      if (count !== 0) this.#fail(`L7: ${count} ${what} after the drain`);
  }

  #fail(what: string): void {
    this.violations.push(what);
  }

  #needGap(law: DeclaredGap['law'], what: string): void {
    const gap = this.#design.gaps.find((each) => each.law === law);
    if (gap === undefined) this.#fail(`${law}: ${what}, and ${this.#design.name} declares no such gap`);
    else this.used.add(gap);
  }

  #checkFreeWhenOff(): void {
    const { stepsWithUnwantedRows, captureBytes, mostCaptureBytes } = this.#ran;
    if (stepsWithUnwantedRows > 0) this.#needGap('L5', `${stepsWithUnwantedRows} steps handed over rows for nobody`);
    if (captureBytes > mostCaptureBytes) {
      this.#needGap('L5', `${captureBytes} bytes were read back, ${mostCaptureBytes} for those who opted in`);
    }
  }

  #checkRequest(ran: RanRequest): void {
    const { request, tokens, finish, rows } = ran;
    const id = request.requestId;
    if (finish === null) return this.#fail(`request ${id} never ended`);
    if (ran.outputsAfterEnd > 0) this.#fail(`L3: request ${id} had ${ran.outputsAfterEnd} outputs after its last`);
    const sequence = [...request.promptTokenIds, ...tokens];
    const { rows: expectedRows, nextTokens } = oracle(this.#ran.model, sequence);
    const numPrompt = request.promptTokenIds.length;
    for (const [i, token] of tokens.entries()) {
      if (token === nextTokens[numPrompt + i - 1]) continue;
      return this.#fail(
        `L2: output token ${i} of request ${id} is ${token}, the oracle says ${nextTokens[numPrompt + i - 1]}`,
      );
    }
    const isComplete = tokens.length === request.sampling.maxTokens || sequence.length === this.#ran.engine.maxModelLen;
    if (finish === 'length' && !isComplete) this.#fail(`request ${id} ended by length after ${tokens.length} tokens`);
    if (!request.sampling.returnRoutedExperts) {
      if (rows !== null) this.#fail(`L5: request ${id} got rows that it did not ask for`);
      return undefined;
    }
    if (rows !== null) return this.#checkRows(ran, rows, expectedRows, sequence.length - 1);
    const gap = this.#design.gaps.find(({ missing }) => missing === 'all');
    if (gap === undefined) this.#fail(`L1: request ${id} (${finish}) got no rows at all`);
    else this.used.add(gap);
  }

  #checkRows(ran: RanRequest, rows: RoutedRows, expected: Uint32Array, numInputs: number): void {
    const id = ran.request.requestId;
    const start = ran.request.sampling.routedExpertsPromptStart;
    const wanted = Math.max(0, numInputs - start);
    if (rows.start !== start || rows.count !== wanted) {
      const got = `rows [${rows.start}, ${rows.start + rows.count})`;
      return this.#fail(`L1: request ${id} (${ran.finish}) got ${got} instead of [${start}, ${start + wanted})`);
    }
    let previous = rows.start;
    for (const [from, to] of rows.missing) {
      const isInside = from >= previous && to > from && to <= rows.start + rows.count;
      if (!isInside) this.#fail(`L4: request ${id} misses [${from}, ${to}) behind ${previous}`);
      previous = to;
    }
    const width = rows.numLayers * rows.topK;
    for (let position = start; position < start + wanted; position++) {
      const row = rowAt(rows, position);
      if (row === null) {
        const isDeclared = rows.missing.some(([from, to]) => position >= from && position < to);
        if (!isDeclared) return this.#fail(`L4: row ${position} of request ${id} is absent but not reported missing`);
        if (!this.#explains(ran, position)) {
          return this.#fail(
            `L1: row ${position} of request ${id} (${ran.finish}) is missing, and no declared gap explains it`,
          );
        }
        continue;
      }
      this.rowsChecked++;
      const at = position * width;
      if (row.length === width && row.every((expert, i) => expert === expected[at + i])) continue;
      const shown = `actual ${[...row].join(' ')}, expected ${[...expected.subarray(at, at + width)].join(' ')}`;
      return this.#fail(`L2/L3: row ${position} of request ${id} (${ran.finish}): ${shown}`);
    }
  }

  #explains(ran: RanRequest, position: number): boolean {
    // Aborted in the middle of its prompt: a row that no delivered output computed does not exist yet.
    const isUncomputed = !ran.computed.some(([from, to]) => position >= from && position < to);
    const isHit = ran.hits.some(([from, to]) => position >= from && position < to);
    if (ran.finish === 'abort' && ran.tokens.length === 0 && isUncomputed && !isHit) return true;
    const gap = this.#design.gaps.find(({ missing }) => {
      switch (missing) {
        case undefined:
          return false;
        case 'all':
          return true;
        case 'prefix-hit':
          return isHit;
        case 'aborted':
          return ran.finish === 'abort';
        case 'stopped':
          return ran.finish === 'stop';
        case 'ended-without-blocks':
          return ran.endedWithoutBlocks;
        default:
          return missing satisfies never;
      }
    });
    if (gap !== undefined) this.used.add(gap);
    return gap !== undefined;
  }
}
