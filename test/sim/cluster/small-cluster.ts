/** Clusters small enough for tests. */

import { modelPreset } from '../../../src/kernels/model/model-presets.ts';
import { VirtualCluster, type ClusterResult } from '../../../src/sim/cluster/cluster.ts';
import { parseFault } from '../../../src/sim/cluster/cluster-fault.ts';
import type { ClusterOptions } from '../../../src/sim/cluster/cluster-options.ts';
import { DEFAULT_COSTS } from '../../../src/sim/cluster/costs.ts';
import { findTestedDesign } from '../../../src/sim/mutants/mutants.ts';

type Given = Omit<Partial<ClusterOptions>, 'faults'> & Readonly<{ design?: string; faults?: readonly string[] }>;

/** Two engines of two ranks on two nodes, a fifth of a second. */
export function clusterOptions({ design = 'deltas', faults = [], ...given }: Given = {}): ClusterOptions {
  return {
    model: modelPreset('tiny'),
    tested: findTestedDesign(design),
    numEngines: 2,
    tensorParallel: 2,
    numNodes: 2,
    served: null,
    concurrency: 4,
    gap: 0,
    optInShare: 1,
    prompt: { from: 4, to: 24 },
    output: { from: 2, to: 12 },
    queueDepth: 2,
    maxNumBatchedTokens: 64,
    dispatch: 'modular',
    lock: 'engine',
    realRanks: 'first',
    duration: 200_000,
    warmUp: 0,
    collectiveTimeout: 60_000_000,
    seed: 1,
    costs: DEFAULT_COSTS,
    faults: faults.map(parseFault),
    ...given,
  };
}

export function runCluster(given: Given = {}): ClusterResult {
  const cluster = new VirtualCluster(clusterOptions(given));
  while (cluster.run(100_000));
  return cluster.result();
}
