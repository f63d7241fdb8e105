/** The options that `fuzz` and `matrix` share. */

import { availableParallelism } from 'node:os';
import type { Command } from 'commander';
import { findTestedDesign } from '../../sim/mutants/mutants.ts';
import { testedDesignNames } from '../../sim/tested-design.ts';
import { isDesignModule } from '../../worker/design-module.ts';
import { withRunFlags, type RunFlags } from '../campaign/run-flags.ts';
import { list, whole } from '../options.ts';
import { loadDesigns } from './loaded-designs.ts';

export type CampaignFlags = RunFlags & {
  seeds: number;
  from: number;
  seed?: number;
  design: string[];
  json?: boolean;
};

type Texts = Readonly<{ seeds: string; defaultSeeds: number; seed: string; defaultDesigns: readonly string[] }>;

export function withCampaignFlags(command: Command, { seeds, defaultSeeds, seed, defaultDesigns }: Texts): Command {
  command
    .option('--seeds <n>', seeds, whole(1, 10_000_000), defaultSeeds)
    .option('--from <seed>', 'first seed; 0x and a commit id draws fresh ones', whole(0), 1)
    .option('--seed <seed>', seed, whole(0))
    .option(
      '--design <names>',
      `all, or some of: ${testedDesignNames.join(', ')}, ./mine.ts`,
      list(knownTestedDesign),
      [...defaultDesigns],
    )
    .option('--jobs <n>', 'threads', whole(1, 256), availableParallelism())
    .option('--json', 'print the result as JSON');
  return withRunFlags(command);
}

/** The tested designs that `--design` names, loaded. Rejects with BAD_DESIGN. */
export async function designsOf({ design }: Pick<CampaignFlags, 'design'>): Promise<readonly string[]> {
  const own = design.filter(isDesignModule);
  await loadDesigns(own);
  return design.includes('all') ? [...testedDesignNames, ...own] : design;
}

function knownTestedDesign(name: string): string {
  return name === 'all' || isDesignModule(name) ? name : findTestedDesign(name).name;
}
