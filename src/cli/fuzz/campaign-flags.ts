/** The options that `fuzz` and `matrix` share, and the bar that both show while they run. */

import { availableParallelism } from 'node:os';
import { SingleBar } from 'cli-progress';
import type { Command } from 'commander';
import { findTestedDesign } from '../../sim/mutants/mutants.ts';
import { testedDesignNames } from '../../sim/tested-design.ts';
import { isDesignModule } from '../../worker/design-module.ts';
import { list, whole } from '../options.ts';
import { loadDesigns } from './loaded-designs.ts';

export type CampaignFlags = {
  seeds: number;
  from: number;
  seed?: number;
  design: string[];
  jobs: number;
  json?: boolean;
};

type Texts = Readonly<{ seeds: string; defaultSeeds: number; seed: string; defaultDesigns: readonly string[] }>;

export function withCampaignFlags(command: Command, { seeds, defaultSeeds, seed, defaultDesigns }: Texts): Command {
  return command
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
}

/** The tested designs that `--design` names, loaded. Rejects with BAD_DESIGN. */
export async function designsOf({ design }: Pick<CampaignFlags, 'design'>): Promise<readonly string[]> {
  const own = design.filter(isDesignModule);
  await loadDesigns(own);
  return design.includes('all') ? [...testedDesignNames, ...own] : design;
}

/** A bar of `total` scenarios on a terminal; elsewhere nothing. */
export function progressBar(total: number): Readonly<{ add: (scenarios: number) => void; stop: () => void }> {
  if (!process.stderr.isTTY) return { add: () => undefined, stop: () => undefined };
  const format = '{bar} {value}/{total} scenarios, {rate}/s';
  const bar = new SingleBar({ format, stream: process.stderr, clearOnComplete: true });
  const startedAt = performance.now();
  let done = 0;
  bar.start(total, 0, { rate: 0 });
  return {
    add: (scenarios) => {
      done += scenarios;
      bar.update(done, { rate: Math.round((1000 * done) / (performance.now() - startedAt)) });
    },
    stop: () => bar.stop(),
  };
}

function knownTestedDesign(name: string): string {
  return name === 'all' || isDesignModule(name) ? name : findTestedDesign(name).name;
}
