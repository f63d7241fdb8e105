/** Where a campaign runs, and how it is stopped and resumed: the options of every command that runs one. */

import { InvalidArgumentError, type Command } from 'commander';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { whole } from '../options.ts';
import { queueUrl } from './queue-address.ts';
import { parseShare, type Share } from './core/share.ts';

export type RunFlags = Readonly<{
  jobs: number;
  queue?: string;
  campaign?: string;
  shard?: Share;
  part?: string;
  patience: number;
}>;

export function withRunFlags(command: Command): Command {
  return command
    .option(
      '--queue <url>',
      'let workers ("work") run the shards: redis://host:port[/db] (docs/campaigns.md)',
      queueUrl,
    )
    .option('--campaign <id>', 'keep what is done in out/campaigns/ID.jsonl, and go on with what is there', campaignId)
    .option('--shard <i/n>', 'run every n-th shard, from the i-th on, into a part file for "merge"', share)
    .option('--part <file>', 'the part file of --shard (default: out/campaigns/KIND-DIGEST-i-of-n.jsonl)')
    .option('--patience <s>', 'with --queue: stop when no shard has come back for so long', whole(1, 10_000_000), 600);
}

/** Throws BAD_VALUE for options that exclude each other. */
export function checkRunFlags({ queue, campaign, shard, part }: RunFlags): void {
  if (shard === undefined) {
    if (part !== undefined) throw RoutedExpertsError.of('BAD_VALUE', '--part', part, '--shard i/n with it');
    return;
  }
  if (queue !== undefined) throw RoutedExpertsError.of('BAD_VALUE', '--queue', queue, 'either --shard or --queue');
  if (campaign !== undefined)
    throw RoutedExpertsError.of('BAD_VALUE', '--campaign', campaign, '--part FILE to name the part');
}

/** Throws BAD_VALUE for options of a campaign beside one that runs none. */
export function refuseRunFlags({ queue, campaign, shard }: RunFlags, beside: string): void {
  const given = { '--queue': queue, '--campaign': campaign, '--shard': shard };
  for (const [name, value] of Object.entries(given)) {
    if (value !== undefined) throw RoutedExpertsError.of('BAD_VALUE', name, 'given', `no ${name} beside ${beside}`);
  }
}

/** The options of a campaign that were given, and not taken from their defaults, each by the field that it fills. */
export function givenFields(
  command: Command,
  fields: Readonly<Record<string, readonly string[]>>,
): ReadonlySet<string> {
  const isGiven = (option: string): boolean => command.getOptionValueSource(option) === 'cli';
  return new Set(Object.keys(fields).filter((field) => fields[field]!.some(isGiven)));
}

function campaignId(text: string): string {
  if (/^\w[\w.-]{0,63}$/.test(text)) return text;
  throw new InvalidArgumentError('Give at most 64 letters, digits, "-", "_" and ".".');
}

function share(text: string): Share {
  const read = parseShare(text);
  if (read !== null) return read;
  throw new InvalidArgumentError('Give i/n with 1 ≤ i ≤ n, as in 2/8.');
}
