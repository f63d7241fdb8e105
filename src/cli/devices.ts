/** `routed-experts devices`: what there is to run on, and which router kernels run there. */

import { Command } from 'commander';
import type { DeviceInfo } from '../contract/device.ts';
import type { RouterKernels } from '../contract/config.ts';
import { hasSelectLayer, hostGpus, INSTALL_LAYER } from '../kernels/device/host-gpus.ts';
import { listDevices, prepareAdapters } from '../kernels/device/open-device.ts';
import { MODEL_NAMES, modelPreset } from '../kernels/model/model-presets.ts';
import { chooseEngineRouter, engineRouterName } from '../kernels/model/route/engine-router.ts';

/** The ways whose kernels are listed: `fused` is what `auto` takes, where a preset has such a kernel. */
const LISTED = ['auto', 'gated'] as const satisfies readonly RouterKernels[];

export function devicesCommand(): Command {
  return new Command('devices')
    .description('List the devices, best first: the first is used unless --device or --adapter says otherwise')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nBeneath each device: the router kernels that --router-kernels gives each model there.')
    .action(async ({ json }: { json?: boolean }) => {
      await prepareAdapters();
      const devices = (await listDevices()).map((info) => ({ ...info, routerKernels: routerKernels(info) }));
      if (json) console.log(JSON.stringify(devices, null, 2));
      else for (const device of devices) console.log(described(device));
      const numGpus = hostGpus().length;
      if (numGpus > 1 && !hasSelectLayer()) {
        console.error(
          `This host has ${numGpus} GPUs; of equal ones only the first is found. For all, ${INSTALL_LAYER}`,
        );
      }
    });
}

type Listed = DeviceInfo & Readonly<{ routerKernels: ReturnType<typeof routerKernels> }>;

/** By way to route and model, the name of the kernels. */
function routerKernels(info: DeviceInfo): Record<(typeof LISTED)[number], Record<string, string>> {
  const namesOf = (kernels: RouterKernels): Record<string, string> =>
    Object.fromEntries(
      MODEL_NAMES.map((name) => {
        const chosen = chooseEngineRouter(modelPreset(name), info, { kind: 'modular', kernels });
        return [name, engineRouterName(chosen)];
      }),
    );
  return { auto: namesOf('auto'), gated: namesOf('gated') };
}

function described({ kind, description, gpu, routerKernels: byWay, ...info }: Listed): string {
  const sizes = info.subgroupSizes;
  const found = [
    sizes === null ? 'no subgroups' : `subgroups of ${[...new Set(sizes)].join('–')}`,
    info.hasTimestamps ? 'timestamps' : 'no timestamps',
    `storage buffers up to ${(info.maxStorageBufferBytes / 2 ** 20).toFixed(0)} MiB`,
  ];
  const place = gpu === undefined ? '' : `, GPU ${gpu.place} at ${gpu.address}`;
  const lines = [`${kind.padEnd(7)} ${description}${place}: ${found.join(', ')}`];
  for (const way of LISTED) {
    const byKernels = Map.groupBy(Object.entries(byWay[way]), ([, kernels]) => kernels);
    for (const [kernels, models] of byKernels) {
      const names = byKernels.size === 1 ? ['every model'] : models.map(([model]) => model);
      lines.push(...wrapped(`        ${way.padEnd(5)}  ${kernels.padEnd(23)}  `, names));
    }
  }
  return lines.join('\n');
}

const MAX_COLUMNS = 100;

/** The names behind a heading, in as many lines as they need. */
function wrapped(heading: string, names: readonly string[]): readonly string[] {
  const lines = [heading];
  for (const [i, name] of names.entries()) {
    const text = i < names.length - 1 ? `${name}, ` : name;
    const line = lines.at(-1)!;
    if (line.length + text.length > MAX_COLUMNS) lines.push(' '.repeat(heading.length) + text);
    else lines[lines.length - 1] = line + text;
  }
  return lines.map((line) => line.trimEnd());
}
