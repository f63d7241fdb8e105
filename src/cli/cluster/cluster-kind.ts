/** The campaign of `cluster`: virtual clusters, each of them a shard. */

import { Piscina } from 'piscina';
import { moduleBeside } from '../../worker/module-beside.ts';
import { checkCluster } from '../../sim/cluster/cluster-options.ts';
import type { CampaignKind } from '../campaign/core/kind.ts';
import { clusterOptionsOf, type ClusterCell, type ClusterMode } from './cluster-cell.ts';
import type { ClusterFigures } from './cluster-figures.ts';
import { reportClusters } from './cluster-report.ts';

export type ClusterDescription = Readonly<{ kind: 'cluster'; mode: ClusterMode; cells: readonly ClusterCell[] }>;

/** Broken laws of a campaign beyond which its other clusters are not worth running. */
const MOST_VIOLATIONS = 50;

export const clusterKind: CampaignKind<ClusterDescription, ClusterCell, ClusterFigures> = {
  name: 'cluster',
  seriesOf: ({ cells }) => [{ tasks: cells, mostViolations: MOST_VIOLATIONS }],
  // Engines times ms: what a cluster takes to run grows with both.
  sizeOf: ({ numEngines, duration }) => Math.max(1, Math.round((numEngines * duration) / 1e3)),
  numViolations: ({ broken }) => (broken === null ? 0 : 1),
  openRunner: (jobs) => {
    const filename = moduleBeside(import.meta.url, 'cluster.worker').href;
    const pool = new Piscina({ filename, minThreads: 1, maxThreads: jobs, recordTiming: false });
    return { run: (cell) => pool.run(cell) as Promise<ClusterFigures>, close: () => pool.destroy() };
  },
  checkHere: async ({ cells }) => {
    for (const cell of cells) checkCluster(clusterOptionsOf(cell));
  },
  report: ({ description, results, seconds, flags }) =>
    reportClusters({ mode: description.mode, figures: results[0]!, seconds, flags }),
};
