/** Layers as lines of comma-separated values. */

import type { InspectionReport } from '../../analysis/inspection.ts';

/** A line a layer; what is not defined is empty. */
export function reportCsv({ perLayer }: InspectionReport): string[] {
  const scalars = perLayer.map(({ drift, ...layer }) => ({
    ...layer,
    drift: drift.distance,
    driftChance: drift.chance,
    hotOverlap: drift.hotOverlap,
  }));
  const names = Object.keys(scalars[0] ?? {});
  return [
    names.join(','),
    ...scalars.map((layer) =>
      Object.values(layer)
        .map((value) => (value === null ? '' : String(value)))
        .join(','),
    ),
  ];
}
