/** `routed-experts kernels`: the router kernels on their own, verified and measured. */

import { Command } from 'commander';
import { openNullAdapter } from '../../kernels/gpu.ts';
import { openDevice, prepareAdapters } from '../../kernels/open-device.ts';
import { WebGpuDevice } from '../../kernels/webgpu-device.ts';
import type { VerifiedCase, VerifyDevice } from './verify.ts';
import { goldenFiles, verifyFiles } from './verify.ts';

export function kernelsCommand(): Command {
  return new Command('kernels')
    .description('Verify and measure the router kernels: logits in, expert ids and weights out')
    .addCommand(verifyCommand());
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
  const device = await WebGpuDevice.on(await openNullAdapter());
  devices.push({ device, host: { isSoftware: false, subgroupSizes: [32, 32] }, isNull: true });
  return devices;
}

function printCase({ name, variant, rows, wrongIds, maxRelativeWeightError, ok, problem }: VerifiedCase): void {
  const figures = `${rows} rows, ${wrongIds} wrong ids, weights within ${maxRelativeWeightError.toExponential(1)}`;
  const shown = variant.startsWith('null/') && ok ? 'compiles' : figures;
  process.stdout.write(`${ok ? 'ok  ' : 'FAIL'} ${name}, ${variant}: ${problem ?? shown}\n`);
}
