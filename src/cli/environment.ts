/** Where a figure was made: without it a figure means nothing. */

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, platform, release, totalmem } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { DeviceInfo } from '../contract/device.ts';

export type Environment = Readonly<{
  version: string;
  /** Commit of the working tree, with `+changes` behind it if it was not clean; `null` outside a checkout. */
  commit: string | null;
  node: string;
  packages: Readonly<Record<string, string>>;
  os: string;
  cpu: string;
  numCpus: number;
  memoryGiB: number;
  device: string;
  isSoftwareDevice: boolean;
  date: string;
  command: string;
}>;

const measuredPackages = ['webgpu', 'piscina', 'koffi'] as const;

export function describeEnvironment(device: DeviceInfo): Environment {
  const processors = cpus();
  return {
    version: packageVersion('../../package.json') ?? 'unknown',
    commit: commit(),
    node: process.version,
    packages: Object.fromEntries(
      measuredPackages.map((name) => [name, packageVersion(`../../node_modules/${name}/package.json`) ?? 'absent']),
    ),
    os: `${platform()} ${release()}`,
    cpu: processors[0]?.model.trim() ?? 'unknown',
    numCpus: processors.length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    device: device.description,
    isSoftwareDevice: device.isSoftware,
    date: new Date().toISOString(),
    command: ['routed-experts', ...process.argv.slice(2)].join(' '),
  };
}

/** Of the package.json at `path`, relative to this file; `null` if there is none. */
export function packageVersion(path: string): string | null {
  try {
    const { version } = JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8')) as { version?: string };
    return version ?? null;
  } catch {
    return null;
  }
}

function commit(): string | null {
  try {
    const hash = git('rev-parse', '--short=12', 'HEAD');
    return git('status', '--porcelain', '--untracked-files=no') === '' ? hash : `${hash}+changes`;
  } catch {
    return null;
  }
}

function git(...args: string[]): string {
  return execFileSync('git', args, {
    cwd: fileURLToPath(new URL('../..', import.meta.url)),
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  }).trim();
}
