// What a router sees of other engines, under every dispatch: the capture hook finds the rank's own rows in it, and no
// other (L3).

import { describe, expect, test } from 'vitest';
import type { Dispatch, EngineConfig } from '../../src/contract/config.ts';
import { otherRows, roomForAll, type HookPlace } from '../../src/worker/pipeline/dispatched-rows.ts';
import { rowsOfRank } from '../../src/worker/pipeline/hook-layout.ts';
import { random } from '../../src/workload/random.ts';
import { BASE_ENGINE } from '../capture/scenarios.ts';

function placeOf(dispatch: Dispatch, engine: number, size: number, tensorParallelSize: number): HookPlace {
  const isSequenceParallel = dispatch === 'naive-shards';
  const ranks = { dataParallelRank: engine, dataParallelSize: size, tensorParallelSize, isSequenceParallel };
  return { ranks, dispatch };
}

test.each([
  ['modular', 0, 0],
  ['naive', 5, 9],
  // Of 4 ranks: 5 rows stand in 8, 9 in 12, and the 2 behind the own 6 are padding.
  ['naive-shards', 8, 2 + 12],
] as const)('%s: %d rows before the own 6, %d behind', (dispatch, before, behind) => {
  expect(otherRows(placeOf(dispatch, 1, 3, 4), [5, 6, 9])).toEqual({ before, behind });
});

describe.each(['modular', 'naive', 'naive-shards'] as const)('%s', (dispatch) => {
  test('the hook takes the rows that lie where the dispatch has put them, and a step has room for all', () => {
    for (let seed = 0; seed < 200; seed++) {
      const stream = random(seed, 'dispatch');
      const [size, tensorRanks] = [2 + stream.below(4), 1 + stream.below(8)];
      const engine: EngineConfig = { ...BASE_ENGINE, maxNumBatchedTokens: 1 + stream.below(40) };
      const rows = Array.from({ length: size }, () => 1 + stream.below(engine.maxNumBatchedTokens));
      for (let own = 0; own < size; own++) {
        const place = placeOf(dispatch, own, size, tensorRanks);
        const { before, behind } = otherRows(place, rows);
        const numTokens = rows[own]!;
        const numRowsSeen = before + numTokens + behind;
        const found = rowsOfRank(place.ranks, { numRowsSeen, rowsPerRank: rows, numTokens });
        expect(found).toEqual({ kind: 'slice', firstRow: before, numTokens });
        const room = roomForAll(engine, place);
        expect(room.maxNumBatchedTokens).toBeGreaterThanOrEqual(numRowsSeen);
        const requests = Math.ceil(before / engine.blockSize) + Math.ceil(behind / engine.blockSize);
        expect(room.maxNumSeqs).toBeGreaterThanOrEqual(engine.maxNumSeqs + (dispatch === 'modular' ? 0 : requests));
      }
    }
  });
});
