/**
 * Runs a campaign where its options say: on threads of this process, a share of it, or on a queue. The result does not
 * depend on where.
 */

import { createHash, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { untilSignal } from '../signals.ts';
import { currentBuild } from './build.ts';
import { Campaign } from './core/campaign.ts';
import type { CampaignKind, Description, ReportFlags } from './core/kind.ts';
import { checkBuild, otherField, type PartHeader } from './core/part.ts';
import { showShare, WHOLE, type Share } from './core/share.ts';
import { progressBar } from './progress-bar.ts';
import { queueAddress } from './queue-address.ts';
import { ResultFile } from './result-file.ts';
import { checkRunFlags, type RunFlags } from './run-flags.ts';
import { runOnThreads } from './run-on-threads.ts';

const FOLDER = join('out', 'campaigns');

/** As of a process that SIGINT ended. */
const EXIT_STOPPED = 130;

/**
 * Runs what `described` says and reports it. `given`: its fields that were asked for, and are not defaults; the others
 * are taken from the file of a campaign that goes on.
 */
export async function runCampaign<Described extends Description, Task, Result>(
  kind: CampaignKind<Described, Task, Result>,
  described: Described,
  given: ReadonlySet<string>,
  flags: RunFlags & ReportFlags,
): Promise<void> {
  checkRunFlags(flags);
  const share = flags.shard ?? WHOLE;
  const file = openFile(described, given, flags);
  const description = (file?.part.description ?? described) as Described;
  await kind.checkHere(description);
  const series = kind.seriesOf(description);
  const tasks = series.flatMap((each) => each.tasks);
  const campaign = new Campaign<Result>({
    series: series.map((each) => ({ numShards: each.tasks.length, mostViolations: each.mostViolations })),
    numViolations: (result) => kind.numViolations(result),
    share,
  });
  let numDone = 0;
  for (const [shard, result] of file?.part.results ?? []) {
    if (campaign.add(shard, result as Result)) numDone += kind.sizeOf(tasks[shard]!);
  }
  const isResumed = numDone > 0;
  const total = tasks.reduce((sum, task) => sum + kind.sizeOf(task), 0) / share.count;
  const bar = progressBar({ total: Math.round(total), done: numDone });
  const run = {
    campaign,
    tasks,
    openRunner: (jobs: number) => kind.openRunner(jobs),
    onResult: (shard: number, result: Result): void => {
      if (!campaign.add(shard, result)) return;
      file?.append(shard, result);
      bar.add(kind.sizeOf(tasks[shard]!));
    },
    note: bar.note,
  };
  const startedAt = performance.now();
  try {
    const work = async (signal: AbortSignal): Promise<void> => {
      if (campaign.isComplete) return;
      if (flags.queue === undefined || file === null) return runOnThreads({ ...run, signal }, flags.jobs);
      const { runOnQueue } = await import('./queue/run-on-queue.ts');
      const { id, build } = file.part;
      return runOnQueue({ ...run, signal }, { id, build, kind: kind.name, url: flags.queue, patience: flags.patience });
    };
    // Without a file there is nothing to go on with later: a signal ends the process.
    if (file === null) await work(new AbortController().signal);
    else await untilSignal(work);
  } finally {
    bar.stop();
    if (file !== null && !campaign.isComplete) sayHowToResume(file, kind.name, flags);
  }
  if (!campaign.isComplete) process.exitCode = EXIT_STOPPED;
  else if (file !== null && flags.shard !== undefined) sayPart(file, flags.shard, flags);
  else {
    const seconds = isResumed ? null : (performance.now() - startedAt) / 1000;
    kind.report({ description, results: campaign.results(), seconds, flags });
  }
}

/** The file that keeps what is done; null for a campaign that is kept nowhere. */
function openFile(described: Description, given: ReadonlySet<string>, flags: RunFlags): ResultFile | null {
  const { queue, campaign, shard } = flags;
  if (queue === undefined && campaign === undefined && shard === undefined) return null;
  const build = currentBuild();
  const digest = createHash('sha256')
    .update(JSON.stringify([described, build]))
    .digest('hex')
    .slice(0, 8);
  const name = shard === undefined ? randomBytes(4).toString('hex') : digest;
  const id = campaign ?? `${described.kind}-${name}`;
  const header: PartHeader = { id, build, description: described, share: shard ?? WHOLE };
  const place = shard === undefined ? id : `${id}-${shard.index + 1}-of-${shard.count}`;
  const file = new ResultFile(flags.part ?? join(FOLDER, `${place}.jsonl`), header);
  checkSame(file, header, shard === undefined ? given : new Set(Object.keys(described)));
  return file;
}

/** Throws BAD_FILE unless the file is of this campaign. */
function checkSame({ part }: ResultFile, { build, description, share }: PartHeader, fields: ReadonlySet<string>): void {
  checkBuild(part, build);
  const wanted = Object.entries(description).filter(([field]) => field === 'kind' || fields.has(field));
  const other = otherField({ ...part.description, ...Object.fromEntries(wanted) }, part.description);
  const problem =
    other !== null
      ? `is of another campaign: ${other}; leave that out to go on with it, or choose another name`
      : showShare(part.share) !== showShare(share)
        ? `holds part ${showShare(part.share)}, not ${showShare(share)}; choose another name`
        : null;
  if (problem !== null) throw RoutedExpertsError.of('BAD_FILE', part.file, problem);
}

function sayHowToResume({ part }: ResultFile, command: string, { shard, queue }: RunFlags): void {
  const again =
    shard === undefined
      ? `routed-experts ${command} --campaign ${part.id}${queue === undefined ? '' : ` --queue ${queueAddress(queue)}`}`
      : 'the same command again';
  process.stderr.write(`campaign ${part.id} is not done; ${part.file} has what is; go on with: ${again}\n`);
}

function sayPart({ part }: ResultFile, share: Share, { json }: ReportFlags): void {
  const { file, id } = part;
  process.stdout.write(
    json === true
      ? `${JSON.stringify({ campaign: id, part: showShare(share), file })}\n`
      : `part ${showShare(share)} of campaign ${id}: ${file}; merge all ${share.count} with "routed-experts merge"\n`,
  );
}
