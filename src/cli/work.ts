/** `routed-experts work`: a worker that takes shards of campaigns from a queue. */

import { availableParallelism } from 'node:os';
import { Command, Option } from 'commander';
import { campaignKind } from './campaign-kinds.ts';
import { currentBuild } from './campaign/build.ts';
import { queueUrl } from './campaign/queue-address.ts';
import { finite, whole } from './options.ts';
import { untilSignal } from './signals.ts';

type Flags = { queue: string; bench?: boolean; jobs: number; lostAfter: number; patience: number };

export function workCommand(): Command {
  return new Command('work')
    .description('Take shards of campaigns from a queue and run them, until Ctrl-C (docs/campaigns.md)')
    .requiredOption('--queue <url>', 'redis://host:port[/db]', queueUrl)
    .option('--bench', 'take the cells of benches, one at a time, and no other shards: nothing runs beside them')
    .addOption(
      new Option('--jobs <n>', 'threads').argParser(whole(1, 256)).default(availableParallelism()).conflicts('bench'),
    )
    .option('--lost-after <s>', 'a worker that is silent for so long has lost its shards', finite(1, 3600), 30)
    .option('--patience <s>', 'end when the server has been gone for so long', finite(1), 600)
    .addHelpText('after', '\nExit code: 0 asked to end by a signal, 2 no queue, or one that does not come back.')
    .action(async ({ queue: url, bench: measures = false, jobs, ...options }: Flags) => {
      const { takeShards } = await import('./campaign/queue/take-shards.ts');
      await untilSignal(async (signal) => {
        const numShards = await takeShards({
          ...options,
          url,
          measures,
          jobs: measures ? 1 : jobs,
          build: currentBuild(),
          kindOf: campaignKind,
          say,
          signal,
        });
        say(`ran ${numShards} shards`);
      });
    });
}

function say(line: string): void {
  process.stderr.write(`${line}\n`);
}
