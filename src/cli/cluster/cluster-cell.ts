/** A virtual cluster as it goes through JSON: one shard of a campaign, and one row of a table. */

import type { ShmFlockSwitches } from '../../contract/config.ts';
import { modelPreset } from '../../kernels/model/model-presets.ts';
import type { ClusterOptions } from '../../sim/cluster/cluster-options.ts';
import { parseFault } from '../../sim/cluster/cluster-fault.ts';
import { findTestedDesign } from '../../sim/mutants/mutants.ts';
import type { TestedDesign } from '../../sim/tested-design.ts';

/** `label`: of its row. `switches`: of `shm-flock`. */
export type ClusterCell = Omit<ClusterOptions, 'model' | 'tested' | 'faults'> &
  Readonly<{ label: string; model: string; design: string; switches: ShmFlockSwitches; faults: readonly string[] }>;

/** Throws UNKNOWN_NAME and BAD_VALUE. */
export function clusterOptionsOf({ model, design, switches, faults, ...options }: ClusterCell): ClusterOptions {
  return {
    ...options,
    model: modelPreset(model),
    tested: switched(findTestedDesign(design), switches),
    faults: faults.map(parseFault),
  };
}

/** What the cells are to each other. `seeds`: one cluster under many seeds. */
export type ClusterMode = 'cells' | 'experiments' | 'scale' | 'seeds';

/** With either switched off every row is missing, and is reported so. */
function switched(tested: TestedDesign, switches: ShmFlockSwitches): TestedDesign {
  if (switches.save && switches.read) return tested;
  const { design, gaps } = tested;
  const reason = 'the workers save no rows, or the scheduler reads none';
  return {
    ...tested,
    gaps: [...gaps, { law: 'L1', reason, missing: 'all' }],
    design: {
      ...design,
      engineHalf: (model, engine, resources) => design.engineHalf(model, engine, { ...resources, shmFlock: switches }),
      workerHalf: (context, resources) => design.workerHalf(context, { ...resources, shmFlock: switches }),
    },
  };
}
