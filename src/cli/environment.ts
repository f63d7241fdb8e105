/** Where a figure was made: without it a figure means nothing. */

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus, hostname, platform, release, totalmem } from 'node:os';
import { join } from 'node:path';
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
  /** By the name that its network knows. */
  host: string;
}>;

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const measuredPackages = ['webgpu', 'piscina', 'koffi'] as const;

export function describeEnvironment(device: DeviceInfo): Environment {
  const processors = cpus();
  return {
    version: packageVersion(ROOT) ?? 'unknown',
    commit: checkoutCommit(),
    node: process.version,
    packages: Object.fromEntries(measuredPackages.map((name) => [name, dependencyVersion(name) ?? 'absent'])),
    os: `${platform()} ${release()}`,
    cpu: processors[0]?.model.trim() ?? 'unknown',
    numCpus: processors.length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    device: device.description,
    isSoftwareDevice: device.isSoftware,
    date: new Date().toISOString(),
    command: ['routed-experts', ...process.argv.slice(2)].join(' '),
    host: hostname(),
  };
}

/** Of the package in `folder`; this one by default. `null`: there is none. */
export function packageVersion(folder: string = ROOT): string | null {
  try {
    const { version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { version?: string };
    return version ?? null;
  } catch {
    return null;
  }
}

/** As it is installed: beside this package, or in it. */
function dependencyVersion(name: string): string | null {
  const folders = createRequire(import.meta.url).resolve.paths(name) ?? [];
  const found = folders.map((folder) => packageVersion(join(folder, name)));
  return found.find((version) => version !== null) ?? null;
}

/**
 * With `+changes` behind it if the tree is not clean. `null` outside of a checkout: a package may lie in the repository
 * of another project.
 */
export function checkoutCommit(): string | null {
  if (!existsSync(join(ROOT, '.git'))) return null;
  try {
    const hash = git('rev-parse', '--short=12', 'HEAD');
    return git('status', '--porcelain', '--untracked-files=no') === '' ? hash : `${hash}+changes`;
  } catch {
    return null;
  }
}

function git(...args: string[]): string {
  return execFileSync('git', args, {
    cwd: ROOT,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  }).trim();
}
