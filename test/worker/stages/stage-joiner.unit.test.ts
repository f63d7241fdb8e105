// Parts of rows meet by request, position and first layer. A row is handed out when all parts of it have come, each
// once; otherwise it is missing as a whole, and said to be (L3, L4).

import { describe, expect, test } from 'vitest';
import { SpanReader } from '../../../src/capture/spans.ts';
import type { ModelRunnerOutput, RoutedExpertDeltas } from '../../../src/contract/model-runner-output.ts';
import { modelPreset } from '../../../src/kernels/model/model-presets.ts';
import { StageJoiner } from '../../../src/worker/pipeline/stages/stage-joiner.ts';
import { stagesOf } from '../../../src/worker/pipeline/stages/stage-plan.ts';

const model = modelPreset('tiny-dense');
/** Columns: none, 0 and 1, 2. */
const stages = stagesOf(model, [2, 2, 2]);

type Span = readonly [request: number, position: number, count: number];

/** Each id tells column, request and position. */
const idOf = (column: number, request: number, position: number): number => 64 * column + 16 * request + position;

function partOf(stage: number, spans: readonly Span[]): RoutedExpertDeltas {
  const { firstLayer, numLayers } = stages[stage]!;
  const ids: number[] = [];
  for (const [request, position, count] of spans) {
    for (let p = position; p < position + count; p++) {
      for (let i = 0; i < numLayers; i++) ids.push(idOf(firstLayer + i, request, p), 255);
    }
  }
  const numRows = spans.reduce((sum, [, , count]) => sum + count, 0);
  const index = Uint32Array.from(spans.flat());
  return { rows: Uint8Array.from(ids), numRows, index, indexLength: index.length, firstLayer };
}

function outputOf(deltas: RoutedExpertDeltas | null, stepId = 4, requests = [1, 2]): ModelRunnerOutput {
  return {
    stepId,
    numRequests: requests.length,
    requestIndices: Uint32Array.from(requests),
    sampledTokenIds: Uint32Array.of(9, 9),
    sampledOffsets: Uint32Array.of(0, 1, 2),
    drafts: null,
    routedExpertDeltas: deltas,
  };
}

const join = (...parts: (RoutedExpertDeltas | null)[]): RoutedExpertDeltas | null =>
  new StageJoiner(model, stages).join(parts.map((part) => outputOf(part))).routedExpertDeltas;

/** Positions by request, of rows that are there; each row must hold the ids of its own place. */
function joinedOf(deltas: RoutedExpertDeltas | null): string[] {
  const found: string[] = [];
  for (const span = new SpanReader(deltas!); span.next();) {
    for (let i = 0; i < span.count; i++) {
      const ids = deltas!.rows.subarray((span.row + i) * 6, (span.row + i + 1) * 6);
      const position = span.position + i;
      expect([...ids]).toEqual([0, 1, 2].flatMap((column) => [idOf(column, span.requestIndex, position), 255]));
      found.push(`${span.requestIndex}@${position}`);
    }
  }
  return found;
}

const spans: readonly Span[] = [
  [1, 3, 2],
  [2, 7, 1],
];

test('rows of all stages are joined; a stage without a router has no part', () => {
  const joined = join(null, partOf(1, spans), partOf(2, spans));
  expect(joinedOf(joined)).toEqual(['1@3', '1@4', '2@7']);
  expect(joined!.missing).toBeUndefined();
});

test('parts whose spans come in another order, or are cut in another way, meet by request and position', () => {
  const cut: readonly Span[] = [
    [2, 7, 1],
    [1, 4, 1],
    [1, 3, 1],
  ];
  expect(joinedOf(join(null, partOf(1, spans), partOf(2, cut)))).toEqual(['1@3', '1@4', '2@7']);
});

test.each<readonly [string, readonly Span[], string[], number[]]>([
  ['a request', [[2, 7, 1]], ['2@7'], [1, 3, 2]],
  ['a row in front', [spans[1]!, [1, 4, 1]], ['1@4', '2@7'], [1, 3, 1]],
  ['a row behind', [[1, 3, 1], spans[1]!], ['1@3', '2@7'], [1, 4, 1]],
])('what one stage did not deliver, %s, is missing as a whole', (_, ofLast, there, missing) => {
  const joined = join(null, partOf(1, spans), partOf(2, ofLast));
  expect(joinedOf(joined)).toEqual(there);
  expect([...joined!.missing!]).toEqual(missing);
  const turned = join(null, partOf(1, ofLast), partOf(2, spans));
  expect(joinedOf(turned).toSorted()).toEqual(there.toSorted());
  expect([...turned!.missing!]).toEqual(missing);
});

test('a part that did not come at all leaves every row missing; where none came, nobody wanted rows', () => {
  const joined = join(null, null, partOf(2, spans));
  expect(joined!.numRows).toBe(0);
  expect([...joined!.missing!]).toEqual(spans.flat());
  expect(join(null, null, null)).toBeNull();
});

const refused = (...outputs: ModelRunnerOutput[]): unknown =>
  expect(() => new StageJoiner(model, stages).join(outputs)).toThrow(expect.objectContaining({ code: 'INVARIANT' }));

describe('refused', () => {
  test('a part that comes twice, and one of no stage', () => {
    const [first, last] = [partOf(1, spans), partOf(2, spans)];
    refused(outputOf(first), outputOf(first), outputOf(last));
    refused(outputOf(null), outputOf(first), outputOf({ ...last, firstLayer: 1 }));
  });

  test('parts of another step, or of requests in another order', () => {
    const [first, last] = [partOf(1, spans), partOf(2, spans)];
    refused(outputOf(null), outputOf(first, 3), outputOf(last));
    refused(outputOf(null), outputOf(first, 4, [2, 1]), outputOf(last));
  });
});
