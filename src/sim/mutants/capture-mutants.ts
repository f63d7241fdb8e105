/** Defects of halves that no engine is known to have had; the checks must find them all the same. */

import type {
  CaptureEngineHalf,
  CaptureWorkerContext,
  CaptureWorkerHalf,
  DeviceRange,
  WorkerStep,
} from '../../contract/capture.ts';
import type { CommandRecorder } from '../../contract/device.ts';
import type { FinishReason } from '../../contract/engine-core-output.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { routedRows, toArray } from '../../capture/routed-rows.ts';
import { DelegatingEngineHalf, DelegatingWorkerHalf } from './delegates.ts';
import type { Mutant } from './mutant.ts';

/** Reads back the whole packed buffer, however few rows a step packs. */
class CopiesWholeBuffer extends DelegatingWorkerHalf {
  readonly #packedBytes: number;

  constructor(half: CaptureWorkerHalf, { pack }: CaptureWorkerContext) {
    super(half);
    this.#packedBytes = pack.packed.byteLength;
  }

  override record(step: WorkerStep, commands: CommandRecorder): DeviceRange | null {
    const range = super.record(step, commands);
    return range === null ? null : { ...range, byteLength: this.#packedBytes };
  }
}

/** Joins the rows of a request into one array at its end, inside the scheduler's step. */
class JoinsInStep extends DelegatingEngineHalf {
  override take(request: CaptureRequest, numNew: number, finish: FinishReason | null): RoutedRows | null {
    const rows = super.take(request, numNew, finish);
    if (rows === null || rows.missing.length > 0) return rows;
    return routedRows(rows, rows.start, rows.start + rows.count, { chunks: [toArray(rows, 0)] });
  }
}

export const captureMutants: readonly Mutant[] = [
  {
    number: 30,
    name: 'whole-buffer-copied',
    defect: 'the worker half reads back the whole packed buffer for one opted-in row',
    source: 'the opposite of L5',
    base: 'deltas',
    mutation: { workerHalf: (half, context) => new CopiesWholeBuffer(half, context) },
  },
  {
    number: 31,
    name: 'joined-in-step',
    defect: 'the engine half copies all rows of a request when it ends, inside the scheduler’s step',
    source: 'the opposite of L6',
    base: 'deltas',
    mutation: { engineHalf: (half: CaptureEngineHalf) => new JoinsInStep(half) },
  },
];
