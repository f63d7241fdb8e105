/** `routed-experts merge`: puts the parts of a campaign together, and prints what one run would have printed. */

import { Command } from 'commander';
import { RoutedExpertsError } from '../contract/errors.ts';
import { campaignKind } from './campaign-kinds.ts';
import { currentBuild } from './campaign/build.ts';
import { cutCampaign } from './campaign/core/cut-campaign.ts';
import type { ReportFlags } from './campaign/core/kind.ts';
import { checkParts, type Part } from './campaign/core/part.ts';
import { isOfShare, showShare } from './campaign/core/share.ts';
import { readPart } from './campaign/result-file.ts';

export function mergeCommand(): Command {
  return new Command('merge')
    .description('Put the parts of a campaign (--shard) together and print what one run would have printed')
    .argument('<part...>', 'the files of all parts, in any order')
    .option('--json', 'print the result as JSON')
    .option('--save <dir>', 'fuzz: as there')
    .option('--csv <file>', 'bench: as there')
    .option('--mutations <file>', 'matrix: as there')
    .option('--out <file>', 'matrix: as there')
    .addHelpText('after', '\nExit code: that of the command that ran the parts; 2 parts that do not fit.')
    .action(merge);
}

async function merge(files: readonly string[], flags: ReportFlags): Promise<void> {
  const parts = files.map(readPart);
  checkParts(parts, currentBuild());
  const { description } = parts[0]!;
  const kind = await campaignKind(description.kind);
  await kind.checkHere(description);
  const { campaign } = cutCampaign(kind, description);
  for (const { results } of parts) for (const [shard, result] of results) campaign.add(shard, result);
  const [shard] = campaign.unfinished();
  if (shard !== undefined) throw notDone(parts, shard);
  kind.report({ description, results: campaign.results(), seconds: null, flags });
}

function notDone(parts: readonly Part[], shard: number): RoutedExpertsError {
  const { file, share } = parts.find((part) => isOfShare(shard, part.share))!;
  const problem = `part ${showShare(share)} is not done: shard ${shard} is missing; run its command again, it goes on`;
  return RoutedExpertsError.of('BAD_FILE', file, problem);
}
