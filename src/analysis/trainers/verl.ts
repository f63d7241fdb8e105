/** verl's `rollout/moe/*_vio` (`trainer/ppo/metric_utils.py`): rows of the response only. */

import type { Capture } from '../../rows/captures/capture.ts';
import { addCounts, layersOf } from '../counts.ts';
import { balanceOf } from '../load/balance.ts';
import { mean } from '../statistics.ts';

export type VerlMetrics = Readonly<{
  rowsCounted: number;
  metrics: Readonly<Record<string, number>>;
  /** Per layer; verl's own numbers are f32. */
  float64: readonly Readonly<Record<'maxVio' | 'minVio' | 'avgVio', number | null>>[];
}>;

const NAMES = { max_vio: 'maxVio', min_vio: 'minVio', avg_vio: 'avgVio' } as const;

/** Where the prompt's length is unknown, every row counts. The last response token has no row. */
export function verlMetrics(capture: Capture): VerlMetrics {
  const { layers, numExperts, topK } = capture;
  const counts = new Uint32Array(layers.length * numExperts);
  let rowsCounted = 0;
  for (const { firstRow, numRows, promptLen } of capture.requests) {
    const from = Math.min(promptLen ?? 0, numRows);
    addCounts(capture, counts, firstRow + from, firstRow + numRows);
    rowsCounted += numRows - from;
  }
  const float64 = layersOf(counts, layers.length).map((layer) => {
    const { maxVio, minVio, avgVio } = balanceOf(layer, { numRows: rowsCounted, topK });
    return { maxVio, minVio, avgVio };
  });
  const metrics: Record<string, number> = {};
  for (const [theirs, ours] of Object.entries(NAMES)) {
    const values = float64.map((layer) => layer[ours]).filter((value) => value !== null);
    values.forEach((value, i) => (metrics[`rollout/moe/${theirs}/layer_${i}`] = value));
    if (values.length === 0) continue;
    // Of `min_vio` too: the least violated layer.
    metrics[`rollout/moe/${theirs}/max`] = Math.max(...values);
    metrics[`rollout/moe/${theirs}/avg`] = mean(values)!;
  }
  return { rowsCounted, metrics, float64 };
}
