/**
 * Runs a campaign where its options say: on threads of this process, a share of it, or on a queue. The result does not
 * depend on where.
 */

import { untilSignal } from '../signals.ts';
import { openCampaignFile } from './campaign-file.ts';
import type { CampaignRun } from './core/campaign-run.ts';
import { cutCampaign } from './core/cut-campaign.ts';
import type { CampaignKind, Description, ReportFlags } from './core/kind.ts';
import { showShare } from './core/share.ts';
import { progressBar } from './progress-bar.ts';
import { queueAddress } from './queue-address.ts';
import type { QueueServer } from './queue/queue-server.ts';
import type { ResultFile } from './result-file.ts';
import { checkRunFlags, type RunFlags } from './run-flags.ts';
import { runOnThreads } from './run-on-threads.ts';

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
  // A campaign that no queue takes does not begin.
  const server = flags.queue === undefined ? null : await connectTo(flags.queue);
  try {
    const file = openCampaignFile(described, given, flags);
    const description = (file?.part.description ?? described) as Described;
    await kind.checkHere(description);
    const run = openRun(kind, description, { file, flags });
    const startedAt = performance.now();
    try {
      await untilComplete(run, { file, server, flags });
    } finally {
      run.close();
      if (file !== null && !run.campaign.isComplete) sayHowToResume(file, flags);
    }
    if (!run.campaign.isComplete) process.exitCode = EXIT_STOPPED;
    else if (file !== null && flags.shard !== undefined) sayPart(file, flags);
    else {
      const seconds = run.isResumed ? null : (performance.now() - startedAt) / 1000;
      kind.report({ description, results: run.campaign.results(), seconds, flags });
    }
  } finally {
    server?.close();
  }
}

type OpenRun<Task, Result> = Omit<CampaignRun<Task, Result>, 'signal'> &
  Readonly<{
    /** Some shards were done before. */
    isResumed: boolean;
    /** See `CampaignKind`. */
    measures: boolean;
    close: () => void;
  }>;

type Surroundings = Readonly<{ file: ResultFile | null; flags: RunFlags }>;

function openRun<Described extends Description, Task, Result>(
  kind: CampaignKind<Described, Task, Result>,
  description: Described,
  { file, flags }: Surroundings,
): OpenRun<Task, Result> {
  const { campaign, tasks } = cutCampaign(kind, description, flags.shard);
  let done = 0;
  for (const [shard, result] of file?.part.results ?? []) {
    if (campaign.add(shard, result as Result)) done += kind.sizeOf(tasks[shard]!);
  }
  const size = tasks.reduce((sum, task) => sum + kind.sizeOf(task), 0);
  const bar = progressBar({ total: Math.round(size / (flags.shard?.count ?? 1)), done });
  return {
    campaign,
    tasks,
    isResumed: done > 0,
    measures: kind.measures === true,
    openRunner: (jobs) => kind.openRunner(jobs),
    onResult: (shard, result) => {
      if (!campaign.add(shard, result)) return;
      file?.append(shard, result);
      bar.add(kind.sizeOf(tasks[shard]!));
    },
    note: bar.note,
    close: bar.stop,
  };
}

async function untilComplete<Task, Result>(
  run: OpenRun<Task, Result>,
  { file, server, flags }: Surroundings & Readonly<{ server: QueueServer | null }>,
): Promise<void> {
  if (run.campaign.isComplete) return;
  // Without a file there is nothing to go on with later: a signal ends the process.
  if (file === null) return runOnThreads({ ...run, signal: new AbortController().signal }, flags.jobs);
  if (server === null) return untilSignal((signal) => runOnThreads({ ...run, signal }, flags.jobs));
  const { runOnQueue } = await import('./queue/run-on-queue.ts');
  const { id, build, description } = file.part;
  const { measures } = run;
  const to = { id, build, measures, kind: description.kind, patience: flags.patience, server };
  return untilSignal((signal) => runOnQueue({ ...run, signal }, to));
}

async function connectTo(url: string): Promise<QueueServer> {
  const queue = await import('./queue/queue-server.ts');
  return queue.QueueServer.connect(url);
}

function sayHowToResume({ part }: ResultFile, { shard, queue }: RunFlags): void {
  const { file, id, description } = part;
  const where = queue === undefined ? '' : ` --queue ${queueAddress(queue)}`;
  const again =
    shard === undefined ? `routed-experts ${description.kind} --campaign ${id}${where}` : 'the same command again';
  process.stderr.write(`campaign ${id} is not done; ${file} has what is; go on with: ${again}\n`);
}

function sayPart({ part }: ResultFile, { json }: ReportFlags): void {
  const { file, id, share } = part;
  process.stdout.write(
    json === true
      ? `${JSON.stringify({ campaign: id, part: showShare(share), file })}\n`
      : `part ${showShare(share)} of campaign ${id}: ${file}; merge all ${share.count} with "routed-experts merge"\n`,
  );
}
