/** `routed-experts kernels`: the router kernels on their own, verified and measured. */

import { Command } from 'commander';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { openNullAdapter } from '../../kernels/device/gpu.ts';
import { openDevice, prepareAdapters } from '../../kernels/device/open-device.ts';
import { describeEnvironment } from '../environment.ts';
import { list, whole } from '../options.ts';
import { BENCH_SHAPES, BENCH_TOKENS } from './bench-shapes.ts';
import type { BenchFigure } from './bench.ts';
import { benchKernels } from './bench.ts';
import { fuzzRouter } from './fuzz.ts';
import type { VerifiedCase, VerifyDevice } from './verify.ts';
import { goldenFiles, verifyFiles } from './verify.ts';

export function kernelsCommand(): Command {
  return new Command('kernels')
    .description('Verify and measure the router kernels: logits in, expert ids and weights out')
    .addCommand(verifyCommand())
    .addCommand(fuzzCommand())
    .addCommand(benchKernelsCommand());
}

type VerifyOptions = Readonly<{ json?: boolean; adapter?: string }>;

function verifyCommand(): Command {
  return new Command('verify')
    .description('Compare every router kernel with recorded answers of real models, on the CPU and on the adapter')
    .argument('<dir>', 'directory of answers (*.json)')
    .option('--adapter <name>', "part of an adapter's name; default: the best there is")
    .option('--json', 'print the result as JSON')
    .addHelpText('after', '\nExit code: 0 all passed, 1 a case failed, 2 bad usage or nothing to verify.')
    .action(async (directory: string, options: VerifyOptions) => {
      const files = goldenFiles(directory);
      const devices = await openVerifyDevices(options);
      try {
        const result = await verifyFiles(files, devices, options.json === true ? undefined : printCase);
        if (options.json === true) process.stdout.write(`${JSON.stringify(result)}\n`);
        const closing = `${result.passed} passed, ${result.failed} failed\n`;
        (options.json === true ? process.stderr : process.stdout).write(closing);
        if (result.failed > 0) process.exitCode = 1;
      } finally {
        for (const { device } of devices) await device.destroy();
      }
    });
}

/** The adapter, unless there is none, and the null backend, which knows the kernels for subgroups of 32. */
async function openVerifyDevices({ adapter }: VerifyOptions): Promise<readonly VerifyDevice[]> {
  await prepareAdapters();
  const devices: VerifyDevice[] = [];
  try {
    const device = await openDevice('webgpu', adapter ?? null);
    process.stderr.write(`${device.info.description}\n`);
    devices.push({ device, host: device.info, isNull: false });
  } catch (error) {
    if (adapter !== undefined) throw error;
    process.stderr.write(`${(error as Error).message}; the kernels are compiled, and the reference is verified\n`);
  }
  const device = await (await openNullAdapter()).openDevice();
  devices.push({ device, host: { isSoftware: false, subgroupSizes: [32, 32] }, isNull: true });
  return devices;
}

function printCase({ name, variant, rows, wrongIds, maxRelativeWeightError, ok, problem }: VerifiedCase): void {
  const figures = `${rows} rows, ${wrongIds} wrong ids, weights within ${maxRelativeWeightError.toExponential(1)}`;
  const shown = variant.startsWith('null/') && ok ? 'compiles' : figures;
  process.stdout.write(`${ok ? 'ok  ' : 'FAIL'} ${name}, ${variant}: ${problem ?? shown}\n`);
}

function fuzzCommand(): Command {
  return new Command('fuzz')
    .description('Compare every router kernel with the reference, for random routing functions on hostile logits')
    .option('--cases <count>', 'cases, each with a seed of its own', whole(1), 20)
    .option('--seed <seed>', 'seed of the first case', whole(0, 2 ** 32 - 1), 1)
    .option('--adapter <name>', "part of an adapter's name; default: the best there is")
    .action(async ({ cases, seed, adapter }: Readonly<{ cases: number; seed: number; adapter?: string }>) => {
      await prepareAdapters();
      const device = await openDevice('webgpu', adapter ?? null);
      let failed = 0;
      try {
        for (let i = 0; i < cases; i++) {
          const failures = await fuzzRouter(device, device.info, seed + i);
          if (failures.length > 0) failed++;
          for (const { kernel, problem } of failures) console.log(`seed ${seed + i}, ${kernel}: ${problem}`);
        }
      } finally {
        await device.destroy();
      }
      console.log(`${cases - failed} passed, ${failed} failed`);
      if (failed > 0) process.exitCode = 1;
    });
}

type BenchOptions = Readonly<{
  json?: boolean;
  adapter?: string;
  tokens?: number[];
  shapes?: string[];
  allVariants?: boolean;
  baselines: number;
  inputs: number;
  passes: number;
}>;

/** Rows above which a software adapter takes longer than anybody waits. */
const MAX_SOFTWARE_TOKENS = 2048;

function benchKernelsCommand(): Command {
  const names = BENCH_SHAPES.map(({ name }) => name);
  return new Command('bench')
    .description('Time every router kernel by device timestamps, and compare it with baselines and with a plain copy')
    .option('--adapter <name>', "part of an adapter's name; default: the best there is")
    .option('--tokens <list>', `rows per launch; default: ${BENCH_TOKENS.join(',')}`, list(whole(1, 2 ** 22)))
    .option(
      '--shapes <list>',
      `of: ${names.join(', ')}`,
      list((text) => text),
    )
    .option('--all-variants', 'also the variants that are not chosen')
    .option('--baselines <tokens>', 'also the baselines, for at most so many rows; 0 = none', whole(0), 0)
    .option(
      '--inputs <count>',
      'most inputs that launches take turns with; 1 leaves them in the cache',
      whole(1, 64),
      8,
    )
    .option('--passes <count>', 'passes of which each figure is the median', whole(1, 1000), 5)
    .option('--json', 'print JSON')
    .action(async (options: BenchOptions) => {
      const unknown = options.shapes?.find((name) => !names.includes(name));
      if (unknown !== undefined) throw RoutedExpertsError.of('UNKNOWN_NAME', 'shape', unknown, names);
      await prepareAdapters();
      const device = await openDevice('webgpu', options.adapter ?? null);
      try {
        const tokens = options.tokens ?? BENCH_TOKENS;
        const plan = {
          shapes: BENCH_SHAPES.filter(({ name }) => options.shapes?.includes(name) ?? true),
          tokens: device.info.isSoftware ? tokens.filter((count) => count <= MAX_SOFTWARE_TOKENS) : tokens,
          allVariants: options.allVariants === true,
          maxInputs: options.inputs,
          maxBaselineTokens: options.baselines,
          passes: options.passes,
        };
        const isJson = options.json === true;
        if (!isJson) console.log(`${device.info.description}\n${HEADING}`);
        const result = await benchKernels(device, plan, (figure) => {
          if (!isJson) console.log(figureLine(figure));
        });
        const { copyGigabytesPerSecond, emptyLaunchUs, figures } = result;
        if (isJson) {
          console.log(JSON.stringify({ environment: describeEnvironment(device.info), ...result }));
        } else {
          console.log(`copy ${copyGigabytesPerSecond.toFixed(0)} GB/s, empty launch ${emptyLaunchUs.toFixed(2)} µs`);
        }
        if (figures.some(({ wrongIds }) => wrongIds > 0)) process.exitCode = 1;
      } finally {
        await device.destroy();
      }
    });
}

const HEADING = 'shape                  tokens  kernel                     µs/launch      GB/s   of copy  wrong ids';

function figureLine({ shape, tokens, kernel, isChosen, ...figure }: BenchFigure): string {
  return [
    shape.padEnd(21),
    String(tokens).padStart(7),
    ` ${isChosen ? '*' : ' '}${kernel.padEnd(22)}`,
    figure.launchUs.toFixed(2).padStart(12),
    figure.gigabytesPerSecond.toFixed(0).padStart(9),
    `${(100 * figure.shareOfCopy).toFixed(0)} %`.padStart(9),
    String(figure.wrongIds).padStart(10),
  ].join(' ');
}
