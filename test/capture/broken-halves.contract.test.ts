/**
 * The contract suite is worth something only if it finds faults: every design, with each half broken in turn, must
 * break a law.
 */

import { describe, expect, test } from 'vitest';
import { designs, type Design } from '../../src/capture/designs.ts';
import type { CaptureEngineHalf, CaptureWorkerHalf } from '../../src/contract/capture.ts';
import { routedRows, toArray } from '../../src/capture/routed-rows.ts';
import { checkLaws } from './check-laws.ts';
import { runDesign } from './design-run.ts';
import { modes, scenarios } from './scenarios.ts';

type Broken = Readonly<{
  name: string;
  engine?: (half: CaptureEngineHalf) => void;
  worker?: (half: CaptureWorkerHalf) => void;
}>;

/** The first `n` values backwards, then the rest. */
function reversed(values: Uint32Array, n: number): Uint32Array {
  const copy = values.slice();
  copy.set(values.slice(0, n).toReversed());
  return copy;
}

const broken: readonly Broken[] = [
  {
    name: 'engine half hands out the next position’s rows',
    engine: (half) => {
      const take = half.take.bind(half);
      half.take = (...args) => {
        const rows = take(...args);
        return rows === null ? null : { ...rows, chunkOrigin: (rows.chunkOrigin ?? 0) - 1 };
      };
    },
  },
  {
    name: 'engine half hands out one row too few',
    engine: (half) => {
      const take = half.take.bind(half);
      half.take = (...args) => {
        const rows = take(...args);
        return rows === null || rows.count === 0 ? rows : { ...rows, count: rows.count - 1, missing: [] };
      };
    },
  },
  {
    name: 'engine half takes in no output',
    engine: (half) => {
      half.onStepOutput = () => {};
      // shm-flock does not hear of rows: its way out is the read.
      if (half.design === 'shm-flock') half.take = () => null;
    },
  },
  {
    name: 'worker half delivers the rows of the step before',
    worker: (half) => {
      let before = new Uint8Array(1 << 16);
      const exchange = (bytes: Uint8Array): Uint8Array => {
        const stale = before.slice(0, bytes.byteLength);
        before = new Uint8Array(1 << 16);
        before.set(bytes);
        return stale;
      };
      const collect = half.collect.bind(half);
      half.collect = (step, bytes, counts) => collect(step, bytes === null ? null : exchange(bytes), counts);
      const reads = half.blockingReads;
      if (!reads) return;
      const takeAfter = reads.takeAfter.bind(reads);
      reads.takeAfter = (step, bytes) => takeAfter(step, exchange(bytes));
    },
  },
  {
    name: 'worker half takes the requests of a step for each other',
    worker: (half) => {
      const collect = half.collect.bind(half);
      half.collect = (step, bytes, counts) =>
        collect(
          {
            ...step,
            requestIndices: reversed(step.requestIndices, step.numRequests),
            rowStarts: reversed(step.rowStarts, step.numRequests),
          },
          bytes,
          counts,
        );
      const reads = half.blockingReads;
      if (!reads) return;
      const takeBefore = reads.takeBefore.bind(reads);
      reads.takeBefore = (step, bytes) => {
        const slots = new Uint32Array(bytes.slice().buffer, 0, step.numTokens).toReversed();
        takeBefore(step, new Uint8Array(slots.buffer));
      };
    },
  },
];

/** What only some designs promise (L5, L6): the others declare that they give it up. */
const costly: readonly (Broken & { law: 'L5' | 'L6' })[] = [
  {
    name: 'worker half reads back the whole packed buffer for one opted-in row',
    law: 'L5',
    worker: (half) => {
      const record = half.record.bind(half);
      half.record = (step, commands) => {
        const range = record(step, commands);
        return range === null ? null : { ...range, byteLength: range.buffer.byteLength };
      };
    },
  },
  {
    name: 'engine half joins all rows of a request when it ends',
    law: 'L6',
    engine: (half) => {
      const take = half.take.bind(half);
      half.take = (...args) => {
        const rows = take(...args);
        if (rows === null || rows.missing.length > 0) return rows;
        return routedRows(rows, rows.start, rows.start + rows.count, { chunks: [toArray(rows, 0)] });
      };
    },
  },
];

const everything = scenarios.find(({ name }) => name === 'everything')!;

/** The design with one half changed after it was made. */
function breakHalf(design: Design, { engine, worker }: Broken): Design {
  return {
    ...design,
    engineHalf: (...args) => {
      const half = design.engineHalf(...args);
      if (half !== null) engine?.(half);
      return half;
    },
    workerHalf: (...args) => {
      const half = design.workerHalf(...args);
      if (half !== null) worker?.(half);
      return half;
    },
  };
}

async function findsFault(design: Design): Promise<boolean> {
  for (const mode of modes) {
    for (let seed = 0; seed < 4; seed++) {
      try {
        const ran = await runDesign({ design, mode, scenario: { ...everything, loseWorkers: 0 }, seed });
        if (checkLaws(design, ran).violations.length > 0) return true;
      } catch {
        // A half or the engine noticed by itself.
        return true;
      }
    }
  }
  return false;
}

describe.each(Object.values(designs).filter(({ name }) => name !== 'off'))('$name', (design) => {
  test('unbroken, no law is broken', async () => {
    expect(await findsFault(design)).toBe(false);
  });
  test.each(broken)('$name', async (each) => {
    expect(await findsFault(breakHalf(design, each))).toBe(true);
  });
  test.each(costly.filter(({ law }) => design.gaps.every((gap) => gap.law !== law)))('$name', async (each) => {
    expect(await findsFault(breakHalf(design, each))).toBe(true);
  });
});
