/** `routed-experts matrix`: which design keeps which law, and which defects the campaign finds. */

import { Command } from 'commander';
import { testedDesignNames } from '../sim/tested-design.ts';
import { runCampaign } from './campaign/run-campaign.ts';
import { givenFields } from './campaign/run-flags.ts';
import { designsOf, withCampaignFlags, type CampaignFlags } from './fuzz/campaign-flags.ts';
import { checkMatrixFiles, matrixKind, type MatrixDescription } from './fuzz/matrix-kind.ts';
import { digestsOf } from './fuzz/module-digests.ts';
import { whole } from './options.ts';

type Flags = CampaignFlags & { pdSeeds: number; offloadSeeds: number; mutations?: string; out?: string };

export function matrixCommand(): Command {
  const command = new Command('matrix').description(
    'Run every design, then every mutant, through the same storms (minutes); write which laws each keeps',
  );
  return withCampaignFlags(command, {
    seeds: 'scenarios of each design, each run twice',
    defaultSeeds: 5000,
    seed: 'the same as --from',
    defaultDesigns: testedDesignNames,
  })
    .option('--pd-seeds <n>', 'of scenarios with a prefill engine in front', whole(1, 10_000_000), 2000)
    .option('--offload-seeds <n>', 'of scenarios with KV outside the device', whole(1, 10_000_000), 2000)
    .option('--mutations <file>', 'a table of what `npm run mutations -- --json FILE` found, too')
    .option('--out <file>', 'write the page to this file, not to standard output')
    .addHelpText(
      'after',
      '\nExit code: 0 no law broken that is not declared, every mutant and mutation killed, else as fuzz; 2 bad usage.',
    )
    .action(matrix);
}

async function matrix(flags: Flags, command: Command): Promise<void> {
  const designs = await designsOf(flags);
  checkMatrixFiles(flags);
  const { seed, from, seeds, pdSeeds, offloadSeeds } = flags;
  const description: MatrixDescription = {
    kind: 'matrix',
    designs,
    modules: digestsOf(designs),
    from: seed ?? from,
    seeds,
    pdSeeds,
    offloadSeeds,
  };
  const options = {
    designs: ['design'],
    modules: ['design'],
    from: ['from', 'seed'],
    seeds: ['seeds'],
    pdSeeds: ['pdSeeds'],
    offloadSeeds: ['offloadSeeds'],
  };
  await runCampaign(matrixKind, description, givenFields(command, options), flags);
}
