// The command line as a user meets it: exit codes 0, 1 and 2; wrong input is answered with what is wanted, never with a
// stack trace; nothing hangs; a run's figures add up.

import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { parse } from 'csv-parse/sync';
import { afterAll, describe, expect, test } from 'vitest';
import { designNames } from '../../src/capture/designs.ts';
import { listDevices } from '../../src/kernels/device/open-device.ts';
import { MODEL_NAMES } from '../../src/kernels/model/model-presets.ts';
import { runHere, runProcess } from './run-cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'routed-experts-test-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(name: string, content: string): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

/** A report without its line breaks. */
const oneLine = (text: string): string => text.replaceAll(/\s+/g, ' ');

const SMALL = ['--model', 'tiny', '--repeats', '2', '--requests', '8', '--ballast-ms', '0'];

describe('bench', () => {
  test.each([
    // Every design's rows on WebGPU: test/worker and test/kernels. A software adapter compiles the kernels in each run.
    { device: 'webgpu', designs: 'off,deltas', repeats: '1', run: runProcess, more: [] },
    { device: 'cpu', designs: designNames.join(','), repeats: '2', run: runHere, more: [] },
    { device: 'clock', designs: 'off,deltas', repeats: '1', run: runHere, more: ['--step-time', '1 ms + 10 us'] },
  ])('on $device, designs $designs: every row right, figures in table and JSON', async (bench) => {
    const { device, designs, repeats, run, more } = bench;
    const json = join(folder, `${device}.json`);
    const csv = join(folder, `${device}.csv`);
    const flags = ['--device', device, '--design', designs, '--repeats', repeats, '--json', json, '--csv', csv];
    const { code, stdout, stderr } = await run('bench', ...SMALL, ...flags, ...more);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain('0 mismatched');
    const result = JSON.parse(readFileSync(json, 'utf8'));
    expect(result.problems).toEqual([]);
    // Which of both it is depends on the machine.
    const isSoftwareDevice = expect.any(Boolean) as boolean;
    expect(result.environment).toMatchObject({ node: process.version, isSoftwareDevice });
    const deltas = result.cells.filter((cell: { design: string }) => cell.design === 'deltas');
    expect(deltas).toHaveLength(3);
    for (const cell of result.cells) {
      expect(cell.rows.verified).toBe(cell.rows.delivered);
      const { submitted, finished, aborted, refused, lost } = cell.requests;
      expect({ sum: finished + aborted + refused, lost }).toEqual({ sum: submitted, lost: 0 });
    }
    // L5: nobody opted in, nothing copied. Then more with more requests opted in.
    expect(deltas.map((cell: { bytesDeviceToHostForCapture: number }) => cell.bytesDeviceToHostForCapture)[0]).toBe(0);
    expect(deltas[2].bytesDeviceToHostForCapture).toBeGreaterThan(deltas[1].bytesDeviceToHostForCapture);
    expect(deltas[2].rows.missing).toBe(0);
    expect(stdout).not.toContain('draft');
    for (const cell of result.cells) expect(cell.drafts).toEqual({ tokens: 0, accepted: 0 });
    // What users pay.
    const count = expect.any(Number) as number;
    for (const { ttftMs, itlMs, cpuUsPerToken, gcPauses, rowBytesPeak } of result.cells) {
      expect(ttftMs.p99).toBeGreaterThanOrEqual(ttftMs.p50);
      expect(itlMs.p99).toBeGreaterThan(0);
      expect(cpuUsPerToken.main).toBeGreaterThan(0);
      expect(cpuUsPerToken.workers).toBeGreaterThan(0);
      expect(gcPauses).toEqual({ main: { count, longestMs: count }, workers: { count, longestMs: count } });
      expect(rowBytesPeak).toMatchObject({ device: count, inFlight: count, requests: count });
    }
    expect(result.cells[0].rowBytesPeak).toEqual({ device: 0, inFlight: 0, cached: null, requests: 0 });
    expect(deltas[0].rowBytesPeak).toMatchObject({ inFlight: 0, cached: 0, requests: 0 });
    for (const what of ['device', 'inFlight', 'cached', 'requests']) {
      expect({ what, bytes: deltas[2].rowBytesPeak[what] > 0 }).toEqual({ what, bytes: true });
    }
    const lines: Record<string, string>[] = parse(readFileSync(csv, 'utf8'), { columns: true });
    expect(lines.map((line) => [line['design'], Number(line['opted_in_share'])])).toEqual(
      result.cells.map((cell: { design: string; optInShare: number }) => [cell.design, cell.optInShare]),
    );
    expect(Math.max(...stdout.split('\n').map((line) => line.length))).toBeLessThanOrEqual(100);
  });

  test('a sweep: the bench for each value, in one table and one CSV', async () => {
    const [json, csv] = [join(folder, 'sweep.json'), join(folder, 'sweep.csv')];
    const flags = '--model tiny --repeats 1 --requests 2 --device cpu --ballast-ms 0 --design deltas --opt-in 1';
    const sweep = ['--sweep', 'prompt-length=16,200', '--json', json, '--csv', csv];
    const { code, stdout } = await runHere('bench', ...flags.split(' '), ...sweep);
    expect(code).toBe(0);
    const cells = [
      ['16', 'off'],
      ['16', 'deltas'],
      ['200', 'off'],
      ['200', 'deltas'],
    ];
    const lines: Record<string, string>[] = parse(readFileSync(csv, 'utf8'), { columns: true });
    expect(lines.map((line) => [line['prompt_length'], line['design']])).toEqual(cells);
    const delivered = lines.map((line) => Number(line['rows_delivered']));
    // Two requests, each with its prompt and all but the last of 32 outputs (L1).
    expect(delivered).toEqual([0, 2 * (16 + 31), 0, 2 * (200 + 31)]);
    expect(stdout).toMatch(/^off\n {2}16 .*\n {2}200 .*\ndeltas 100 %\n {2}16 .*\n {2}200 /m);
    expect(stdout).toMatch(/^sweep of prompt-length: 16, 200; /);
    const { sweep: parameter, results } = JSON.parse(readFileSync(json, 'utf8'));
    expect([parameter, results.map(({ value }: { value: string }) => value)]).toEqual(['prompt-length', ['16', '200']]);
  });

  test('without a GPU: on the clock, which it says, and each design once where the shaders run', async () => {
    const flags = ['--model', 'tiny', '--requests', '4', '--repeats', '1', '--design', 'deltas', '--opt-in', '1'];
    const { code, stdout } = await runHere('bench', ...flags);
    expect(code).toBe(0);
    const { isSoftware } = (await listDevices())[0]!;
    if (isSoftware) {
      expect(oneLine(stdout)).toContain('device clock (modelled time: a step takes 7.6 ms + 60 µs per token; ');
      expect(oneLine(stdout)).toMatch(/not a GPU/);
      expect(stdout).toMatch(/clock: \d+ deadlines, /);
      expect(oneLine(stdout)).toMatch(/shaders, untimed, on .*: 2 designs, 262 rows verified/);
    } else {
      expect(stdout).not.toMatch(/clock|shaders/);
    }
  });

  test('within a time budget: pairs until the intervals are narrow or the time is spent', async () => {
    const json = join(folder, 'budget.json');
    const flags = ['--model', 'tiny', '--device', 'cpu', '--requests', '4', '--ballast-ms', '0', '--json', json];
    const { code, stdout } = await runHere(
      'bench',
      ...flags,
      '--design',
      'deltas',
      '--opt-in',
      '1',
      '--length-scale',
      '0.3',
      '--time-budget',
      '6',
    );
    expect(code).toBe(0);
    expect(oneLine(stdout)).toMatch(/pairs until ± 2 %, at most 6 s/);
    const { cells, runs, options, warnings } = JSON.parse(readFileSync(json, 'utf8'));
    expect(options).toMatchObject({ repeats: null, ending: { kind: 'half-width', budgetMs: 6000 } });
    const { median, low, high, halfWidth, verdict, pairs, endedBy } = cells[1].ratioToOff;
    expect(runs).toHaveLength(2 * pairs);
    expect(stdout).toContain(` · pairs of each cell: ${pairs}\n`);
    expect(stdout).toContain(endedBy === 'half-width' ? `${verdict} ` : `${verdict}* `);
    for (const warning of warnings) expect(oneLine(stdout)).toContain(`WARNING ${warning}`);
    if (pairs < 8) {
      expect([low, high, endedBy]).toEqual([null, null, 'time budget']);
    } else {
      expect(low).toBeLessThanOrEqual(median);
      expect(high).toBeGreaterThanOrEqual(median);
      expect(halfWidth).toBeCloseTo((high - low) / 2, 12);
      expect(stdout).toMatch(/^deltas 100 % +\d\.\d+ ± \d\.\d+ /m);
    }
  });

  test('drafts are counted, and told where there are any', async () => {
    const json = join(folder, 'drafts.json');
    const flags = ['--device', 'cpu', '--design', 'deltas', '--opt-in', '1', '--json', json];
    const drafts = ['--num-speculative-tokens', '3', '--draft-acceptance-rate', '0.9'];
    const { code, stdout } = await runHere('bench', ...SMALL, ...flags, ...drafts);
    expect(code).toBe(0);
    const { cells, problems } = JSON.parse(readFileSync(json, 'utf8'));
    expect(problems).toEqual([]);
    const { tokens, accepted } = cells[1].drafts;
    expect(accepted).toBeGreaterThan(tokens / 2);
    expect(accepted).toBeLessThan(tokens);
    expect(cells[1].rows.verified).toBeGreaterThan(0);
    expect(stdout).toContain(`deltas 100 %: ${tokens} draft tokens, ${accepted} accepted`);
  });

  // Both queue depths, down to the last row and buffer: test/worker/threads.integration.test.ts.
  test('preemption and aborts: all accounted for, nothing left', async () => {
    const json = join(folder, 'storm.json');
    const flags =
      'bench --model tiny --device cpu --ballast-ms 0 --repeats 1 --design deltas --opt-in 1 --workload rollout ' +
      '--requests 96 --concurrency 32 --max-model-len 256 --block-size 4 --num-blocks 120 --abort-share 0.2';
    const { code, stderr } = await runHere(...flags.split(' '), '--queue-depth', '2', '--json', json);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const { problems, cells } = JSON.parse(readFileSync(json, 'utf8'));
    const deltas = cells[1];
    expect(deltas.preemptions).toBeGreaterThanOrEqual(100);
    expect(deltas.requests.aborted).toBeGreaterThan(10);
    expect(problems).toEqual([]);
  });

  test('a prompt that can never fit the pool ends alone', async () => {
    const { code, stdout } = await runHere(
      'bench',
      ...SMALL,
      '--device',
      'cpu',
      '--design',
      'deltas',
      '--num-blocks',
      '6',
    );
    expect(code).toBe(0);
    expect(oneLine(stdout)).toMatch(/refused, for example: request "[^"]+" can need \d+ KV blocks, the pool has 5/);
  });
});

// Together: most of it is the time that a thread which is stuck is given.
describe.concurrent('a fault', () => {
  test.each([
    ['--lose-device-at', 'the device is gone'],
    ['--kill-worker-at', 'worker of rank 0 was lost'],
  ])('%s ends the run with one clear error and exit code 2', async (fault, message) => {
    const { code, stdout, stderr } = await runProcess('bench', ...SMALL, '--design', 'deltas', fault, '4');
    expect(code).toBe(2);
    expect(stdout).toBe('');
    expect(stderr.trim().split('\n')).toHaveLength(1);
    expect(stderr).toContain(message);
  });

  test('a worker that is stuck ends the run with one clear error, and does not keep the process alive', async () => {
    const flags = [
      '--device',
      'cpu',
      '--ranks',
      '2',
      '--hang-worker-at',
      '4',
      '--fault-rank',
      '1',
      '--step-timeout',
      '1',
    ];
    const { code, stderr } = await runProcess('bench', ...SMALL, '--design', 'deltas', ...flags);
    expect(code).toBe(2);
    const [error, end, ...others] = stderr.trim().split('\n');
    expect(error).toContain('worker of rank 1 was lost: it is stuck: no reply within 1 s (--step-timeout');
    expect([end, others]).toEqual(['1 worker threads are stuck, and end with the process', []]);
  });
});

describe('wrong input: exit code 2, the value, the limit, no stack trace', () => {
  const brokenTrace = file(
    'broken.jsonl',
    '{"timestamp":0,"input_length":4,"output_length":2,"hash_ids":[1]}\n{oops\n',
  );
  const cases: readonly (readonly [string, readonly string[], RegExp])[] = [
    ['no command', [], /Usage:/],
    ['unknown command', ['benhc'], /unknown command 'benhc'/],
    ['unknown option', ['bench', '--desing', 'x'], /unknown option '--desing'/],
    ['unknown design', ['bench', '--design', 'shm'], /unknown design "shm"; choose one of: off, shm-flock/],
    ['unknown model', ['bench', '--model', 'gpt-5'], /unknown model "gpt-5"; choose one of: gpt-oss-120b/],
    ['unknown adapter', ['bench', '--adapter', 'voodoo'], /unknown adapter "voodoo"; choose one of:/],
    [
      'adapter of no use',
      ['bench', '--device', 'cpu', '--adapter', 'x'],
      /--adapter is x; give none with --device cpu/,
    ],
    ['trace and workload', ['bench', '--trace', 'x', '--workload', 'burst'], /'--trace <file>' cannot be used with/],
    [
      'nothing that can be served',
      ['bench', '--device', 'cpu', '--model', 'tiny', '--requests', '2', '--max-model-len', '9'],
      /all 2 requests were refused, for example: .*raise --max-model-len/,
    ],
    ['unknown device', ['bench', '--device', 'tpu'], /Allowed choices are auto, webgpu, clock, cpu/],
    ['step time', ['bench', '--step-time', '10'], /step time is "10"; give "<ms> ms \+ <µs> us per token"/],
    [
      'ballast on the clock',
      ['bench', '--device', 'clock', '--ballast-ms', '3'],
      /--ballast-ms is 3; give --step-time instead/,
    ],
    ['unknown workload', ['bench', '--workload', 'x'], /unknown workload "x"; choose one of: chat/],
    ['negative', ['bench', '--repeats', '-3'], /'-3' is invalid. Give a whole number in \[1, 1000\]/],
    ['a budget and a number', ['bench', '--repeats', '3', '--time-budget', '9'], /'--time-budget <s>' cannot be used/],
    ['no budget', ['bench', '--time-budget', '0'], /'0' is invalid. Give a number in \[1, 86400\]/],
    ['not finite', ['bench', '--ballast-ms', 'Infinity'], /'Infinity' is invalid/],
    ['not a number', ['bench', '--opt-in', '0,x'], /'0,x' is invalid. Give a number in \[0, 1\]/],
    ['over the limit', ['bench', '--opt-in', '1.5'], /'1.5' is invalid/],
    ['trace that is not there', ['bench', '--trace', '/nope.jsonl'], /\/nope.jsonl: no such file/],
    ['broken trace line', ['bench', '--trace', brokenTrace], /broken\.jsonl:2: /],
    ['gate width', ['bench', '--device', 'cpu', '--gate-width', '12'], /gateWidth is 12; give a multiple of 8/],
    ['a sweep of nothing', ['bench', '--sweep', 'foo=1,2'], /"foo" cannot be swept\. Give <parameter>=<values>, of: /],
    ['a sweep out of range', ['bench', '--sweep', 'ranks=1,99'], /"99": Give a whole number in \[1, 16\]/],
    [
      'a sweep of a flag that is given',
      ['bench', '--sweep', 'opt-in=0,1', '--opt-in', '1'],
      /--sweep is opt-in; give a sweep of another parameter, or leave out --opt-in/,
    ],
    [
      'too few requests for a sweep',
      ['bench', '--device', 'cpu', '--sweep', 'requests-running=2,9', '--requests', '8'],
      /--sweep requests-running is 9; give values up to 8/,
    ],
    [
      'a budget too short for a sweep',
      [
        ...'bench --device cpu --model tiny --design deltas --requests 2 --ballast-ms 0 --time-budget 1'.split(' '),
        '--sweep',
        'ranks=1,2',
      ],
      /--time-budget is 1; give \d+ for 8 pairs, .*, for each of 2 values/,
    ],
    [
      'a prompt length of a workload that has its own',
      ['bench', '--device', 'cpu', '--prompt-length', '5'],
      /--prompt-length is 5; give none, or --workload fixed/,
    ],
    [
      'a shape that no router has',
      ['bench', '--model', 'tiny', '--layers-x-k', '2x9'],
      /--layers-x-k is 2x9; give a K/,
    ],
    ['CSV that cannot be written', ['bench', '--device', 'cpu', '--csv', '/nope/x.csv'], /\/nope\/x.csv: cannot be/],
    ['JSON that cannot be written', ['bench', '--json', '/nope/x.json'], /\/nope\/x.json: cannot be written/],
    ['no recordings', ['conformance', '/nope'], /\/nope: no such directory/],
  ];
  test.each(cases)('%s', async (_name, args, message) => {
    const { code, stderr } = await runHere(...args);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(code).toBe(2);
  });

  test('and so does a process', async () => {
    const [, args, message] = cases.find(([name]) => name === 'unknown design')!;
    const { code, stdout, stderr } = await runProcess(...args);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(message);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });
});

test('a reader that closes the pipe ends the command without a word', async () => {
  const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
  const command = `"${process.execPath}" "${main}" fuzz --seed 7 | head -n 1`;
  const { stdout, stderr } = await promisify(execFile)('sh', ['-c', command]);
  expect([stdout, stderr]).toEqual([expect.stringContaining('deltas: '), '']);
});

test('--help of every command, and the list of devices', async () => {
  // A process: it loads all commands as Node does.
  const { code, stdout } = await runProcess('--help');
  expect([code, stdout]).toEqual([0, expect.stringContaining('Usage: routed-experts')]);
  for (const command of ['bench', 'devices', 'conformance', 'fuzz', 'matrix', 'kernels', 'serve', 'proxy']) {
    const help = await runHere(command, '--help');
    expect([help.code, help.stdout]).toEqual([0, expect.stringContaining(`Usage: routed-experts ${command}`)]);
  }
  const listed = await runHere('devices', '--json');
  expect(listed.code).toBe(0);
  const devices = JSON.parse(listed.stdout) as {
    kind: string;
    routerKernels: Record<string, Record<string, string>>;
  }[];
  expect(devices.map(({ kind }) => kind)).toEqual(expect.arrayContaining(['webgpu', 'cpu']));
  for (const { routerKernels } of devices) {
    expect(Object.keys(routerKernels['auto']!)).toEqual(MODEL_NAMES);
    expect(Object.values(routerKernels['gated']!).every((name) => name.startsWith('gate+'))).toBe(true);
  }
});
