/**
 * A campaign on a queue has the result of one process: workers die, Redis restarts, forgets everything, the campaign is
 * stopped and goes on, and no shard is lost or counted twice.
 *
 * `npm run campaign-trial` runs the first test with 1,000,000 seeds.
 */

import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { SweepReport } from '../../../src/cli/bench/report/sweep-report.ts';
import { sweepKind } from '../../../src/cli/bench/sweep/sweep-kind.ts';
import { runHere, type Ended } from '../run-cli.ts';
import { CliProcess, endProcesses } from './cli-process.ts';
import { redisBinary, RedisServer } from './redis-server.ts';

const REPOSITORY = join(import.meta.dirname, '..', '..', '..');

const numTrialSeeds = Number(process.env['CAMPAIGN_SEEDS'] ?? 0);
const TRIAL_MS = 60_000 + numTrialSeeds * 20;

/** A shard for each design; in a trial the seeds of one design. */
const CAMPAIGN = numTrialSeeds > 0 ? ['--seeds', `${numTrialSeeds}`] : ['--design', 'all', '--seeds', '200'];
const NUM_SHARDS = numTrialSeeds > 0 ? Math.ceil(numTrialSeeds / 500) : 9;
const JOBS = numTrialSeeds > 0 ? `${Math.max(1, Math.floor(availableParallelism() / 3))}` : '1';

const startFolder = process.cwd();
let folder = '';
let redis: RedisServer | null = null;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'routed-experts-queue-'));
  process.chdir(folder);
});

afterEach(async () => {
  endProcesses();
  await redis?.stop();
  redis = null;
  process.chdir(startFolder);
  rmSync(folder, { recursive: true, force: true });
});

async function startRedis(appendOnly: boolean): Promise<string> {
  redis = await RedisServer.start(folder, { appendOnly });
  return redis.url;
}

async function startWorker(url: string, ...flags: readonly string[]): Promise<CliProcess> {
  const worker = new CliProcess(['work', '--queue', url, '--jobs', JOBS, '--lost-after', '2', ...flags], {
    cwd: folder,
  });
  await worker.says('takes shards');
  return worker;
}

/** Without what differs from run to run. */
function resultOf({ stdout, stderr }: Ended): unknown {
  expect(stdout, stderr).not.toBe('');
  const result = JSON.parse(stdout) as Record<string, unknown>;
  return { ...result, seconds: 0, scenariosPerSecond: 0, stepsPerSecond: 0 };
}

/** The shards that the campaign has kept, in the order in which they came. */
function keptShards(): number[] {
  const kept = join(folder, 'out', 'campaigns');
  const [file] = existsSync(kept) ? readdirSync(kept) : [];
  if (file === undefined) return [];
  const [, ...lines] = readFileSync(join(kept, file), 'utf8').split('\n').slice(0, -1);
  return lines.map((line) => (JSON.parse(line) as { shard: number }).shard);
}

/** Each with its text. */
function savedCases(): [string, string][] {
  return readdirSync('cases').map((file) => [file, readFileSync(join('cases', file), 'utf8')]);
}

/** The figures of a trial. */
function tell(runs: Readonly<Record<string, Ended>>): void {
  for (const [name, { stdout }] of Object.entries(runs)) {
    const { scenarios, steps, seconds, designs } = JSON.parse(stdout) as Record<string, unknown>;
    const [{ hash }] = designs as [{ hash: string }];
    process.stdout.write(`${name}: ${scenarios} scenarios, ${steps} steps in ${seconds} s, event log ${hash}\n`);
  }
}

async function untilKept(numShards: number): Promise<void> {
  await vi.waitFor(() => expect(keptShards().length).toBeGreaterThanOrEqual(numShards), {
    timeout: TRIAL_MS,
    interval: 20,
  });
}

describe.skipIf(redisBinary === null)('on a queue', () => {
  test(
    'three workers, one of which is killed, and a Redis that restarts: hash and counts are those of one process',
    async () => {
      const url = await startRedis(true);
      const workers = await Promise.all([startWorker(url), startWorker(url), startWorker(url)]);
      const campaign = runHere('fuzz', '--queue', url, ...CAMPAIGN, '--patience', '60', '--json');
      await untilKept(NUM_SHARDS / 9);
      workers[0].signal('SIGKILL');
      expect(await workers[0].ended()).toBeNull();
      await untilKept(NUM_SHARDS / 3);
      await redis!.restart();

      const queued = await campaign;
      expect(queued.code, queued.stderr).toBe(0);
      expect(keptShards().sort((a, b) => a - b)).toEqual(Array.from({ length: NUM_SHARDS }, (_, shard) => shard));
      for (const worker of workers.slice(1)) worker.signal('SIGTERM');
      for (const worker of workers.slice(1)) expect(await worker.ended(), worker.stderr).toBe(0);
      const one = await runHere('fuzz', ...CAMPAIGN, '--json');
      expect(resultOf(queued)).toEqual(resultOf(one));
      if (numTrialSeeds > 0) tell({ queued, one });
    },
    2 * TRIAL_MS,
  );

  test('a Redis that forgets everything gets the shards again', async () => {
    const few = ['--design', 'off,deltas', '--seeds', '50', '--json'];
    const url = await startRedis(false);
    // Less than the time after which shards are put again, whatever happened.
    const campaign = runHere('fuzz', '--queue', url, ...few, '--patience', '25');
    await vi.waitFor(async () => expect(await redis!.keys('*:wait')).toHaveLength(1), { timeout: 60_000 });
    await redis!.restart();
    const worker = await startWorker(url);
    const queued = await campaign;
    expect(queued.code, queued.stderr).toBe(0);
    expect(queued.stderr).toContain('forgets its jobs');
    expect(resultOf(queued)).toEqual(resultOf(await runHere('fuzz', ...few)));
    worker.signal('SIGTERM');
    expect(await worker.ended()).toBe(0);
  });

  test('a campaign that is stopped goes on by its id, ends as one process, and saves its failing cases', async () => {
    const broken = ['--design', 'off,mutant/appended-twice', '--seeds', '501'];
    const url = await startRedis(true);
    const first = new CliProcess(['fuzz', '--queue', url, ...broken, '--campaign', 'mine'], { cwd: folder });
    const worker = await startWorker(url);
    await untilKept(1);
    first.signal('SIGINT');
    expect(await first.ended()).toBe(130);
    expect(first.stderr).toContain(`go on with: routed-experts fuzz --campaign mine --queue ${url}`);

    const second = await runHere('fuzz', '--queue', url, '--campaign', 'mine', '--save', 'cases');
    expect(second.code, second.stderr).toBe(1);
    worker.signal('SIGTERM');
    const cases = savedCases();
    rmSync('cases', { recursive: true });
    const one = await runHere('fuzz', ...broken, '--save', 'cases');
    expect(second.stdout).toBe(one.stdout.replace(/ in \S+ s: .*\n$/, '\n'));
    expect(cases.length).toBeGreaterThan(0);
    expect(cases).toEqual(savedCases());
  });

  test('a sweep is measured by workers that take nothing else, and serves what one process serves', async () => {
    const served = '--device cpu --model tiny --workload fixed --prompt-length 8 --requests 3 --ballast-ms 0';
    const sweep = `${served} --design deltas --opt-in 1 --repeats 1 --sweep queue-depth=1,2`.split(' ');
    const url = await startRedis(true);
    const campaign = runHere('bench', '--queue', url, ...sweep, '--json', 'queued.json', '--patience', '60');
    const others = new CliProcess(['work', '--queue', url, '--jobs', '1'], { cwd: folder });
    await others.says('refuses campaign bench-');
    expect(keptShards()).toEqual([]);
    const measuring = new CliProcess(['work', '--queue', url, '--bench'], { cwd: folder });
    const { code, stderr } = await campaign;
    expect(code, stderr).toBe(0);
    expect(stderr).toContain(`workers: routed-experts work --queue ${url} --bench`);
    for (const worker of [others, measuring]) worker.signal('SIGTERM');
    expect([await others.ended(), await measuring.ended()]).toEqual([0, 0]);
    expect(others.stderr).toContain('ran 0 shards');
    expect(measuring.stderr).toContain('ran 2 shards');
    await runHere('bench', ...sweep, '--json', 'one.json');
    const [queued, one] = ['queued.json', 'one.json'].map((file) => {
      const { results } = JSON.parse(readFileSync(file, 'utf8')) as SweepReport;
      return results.map((report) => sweepKind.repeatablePart!(report));
    });
    expect(queued).toEqual(one);
  });

  test('a worker of other code refuses the campaign, which ends and says what worker it wants', async () => {
    const other = join(folder, 'other');
    mkdirSync(other);
    cpSync(join(REPOSITORY, 'src'), join(other, 'src'), { recursive: true });
    cpSync(join(REPOSITORY, 'package.json'), join(other, 'package.json'));
    appendFileSync(join(other, 'src', 'index.ts'), '// Other code.\n');
    symlinkSync(join(REPOSITORY, 'node_modules'), join(other, 'node_modules'));
    const url = await startRedis(true);
    const main = join(other, 'src', 'cli', 'main.ts');
    const refusing = new CliProcess(['work', '--queue', url, '--jobs', '1'], { cwd: folder, main });
    await refusing.says('takes shards');
    const campaign = runHere('fuzz', '--queue', url, '--seeds', '10', '--patience', '3');
    await refusing.says('refuses campaign fuzz-');
    refusing.signal('SIGTERM');
    expect(await refusing.ended()).toBe(0);
    expect(refusing.stderr).toContain('ran 0 shards');
    const { code, stderr } = await campaign;
    expect(code).toBe(2);
    expect(stderr).toMatch(/no shard has come back for 3 s .* no workers of version .*; start "routed-experts work /);
  });

  test('a worker without the module of a design fails the campaign, and says what is missing', async () => {
    cpSync(join(REPOSITORY, 'examples', 'designs', 'overlay.ts'), join(folder, 'overlay.ts'));
    const url = await startRedis(true);
    const own = ['--design', './overlay.ts', '--seeds', '10'];
    const elsewhere = new CliProcess(['work', '--queue', url, '--jobs', '1'], { cwd: tmpdir() });
    const { code, stderr } = await runHere('fuzz', '--queue', url, ...own, '--patience', '30');
    expect(stderr).toMatch(/shard 0 failed: design module .*overlay\.ts: it cannot be read/);
    expect(code).toBe(2);
    elsewhere.signal('SIGTERM');
    expect(await elsewhere.ended()).toBe(0);
  });

  test('a Redis that is lost for good ends both, and the campaign goes on later', async () => {
    const url = await startRedis(true);
    const worker = await startWorker(url, '--patience', '1');
    const campaign = runHere('fuzz', '--queue', url, '--seeds', '2000', '--patience', '2');
    // The file is begun when the queue is there.
    await vi.waitFor(() => expect(existsSync(join('out', 'campaigns'))).toBe(true), { timeout: 60_000, interval: 20 });
    await redis!.stop();
    expect(await worker.ended()).toBe(2);
    expect(worker.stderr).toContain('gone for 1 s');
    const { code, stderr } = await campaign;
    expect(code).toBe(2);
    expect(stderr).toMatch(/no shard has come back for 2 s .* is gone \(.*ECONNREFUSED.*\); start it again/);
    expect(stderr).toContain('go on with: routed-experts fuzz --campaign fuzz-');
  });
});
