/** `routed-experts devices`: what there is to run on. */

import { Command } from 'commander';
import { DEFAULT_MODEL, modelPreset } from '../kernels/model/model-presets.ts';
import { listDevices, prepareAdapters } from '../kernels/device/open-device.ts';
import { chooseEngineRouter, engineRouterName } from '../kernels/model/route/engine-router.ts';

export function devicesCommand(): Command {
  return new Command('devices')
    .description('List the devices, best first: the first is used unless --device or --adapter says otherwise')
    .option('--json', 'print JSON')
    .action(async ({ json }: { json?: boolean }) => {
      await prepareAdapters();
      const devices = await listDevices();
      if (json) {
        console.log(JSON.stringify(devices, null, 2));
        return;
      }
      for (const device of devices) {
        const sizes = device.subgroupSizes;
        const subgroups = sizes === null ? 'no subgroups' : `subgroups of ${[...new Set(sizes)].join('–')}`;
        const timestamps = device.hasTimestamps ? 'timestamps' : 'no timestamps';
        const limit = `storage buffers up to ${(device.maxStorageBufferBytes / 2 ** 20).toFixed(0)} MiB`;
        const router = `routes by ${engineRouterName(chooseEngineRouter(modelPreset(DEFAULT_MODEL), device))}`;
        const found = [subgroups, timestamps, limit, router].join(', ');
        console.log(`${device.kind.padEnd(7)} ${device.description}: ${found}`);
      }
    });
}
