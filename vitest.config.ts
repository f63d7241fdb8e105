import { join } from 'node:path';
import { defineConfig, type ViteUserConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

// For the test processes, and the processes and threads that they start: without it each of these strips the types of
// all that it loads, which takes longer than most tests. Its entries are found by what a file contains.
process.env['NODE_COMPILE_CACHE'] ??= join(import.meta.dirname, '.cache', 'compiled');

/** Node itself loads what is tested, as it does for a user: no test replaces a module. */
const experimental = { viteModuleRunner: false, nodeLoader: false };

/** Files that take long without being large. One that begins last leaves the other worker without work. */
const LONG_FILES = ['device.contract', 'small-worlds.unit', 'kernels.wgsl'];

const isLong = ({ moduleId }: TestSpecification): boolean => LONG_FILES.some((name) => moduleId.includes(name));

class LongFilesFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    return [...sorted.filter(isLong), ...sorted.filter((file) => !isLong(file))];
  }
}

/**
 * unit         pure code: engine, workload, reference kernels
 * contract     one suite per interface, over every implementation of it
 * wgsl         shaders and pipelines validated with Dawn's null backend: no adapter needed
 * integration  real threads, real WGSL, the command line
 */
const config: ViteUserConfig = defineConfig({
  test: {
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    sequence: { sequencer: LongFilesFirst },
    globalSetup: ['test/prepare-adapters.ts'],
    projects: [
      // These files leave nothing behind: they share a process, which loads what they test once.
      { test: { name: 'unit', include: ['test/**/*.unit.test.ts'], experimental, isolate: false } },
      {
        test: {
          name: 'contract',
          include: ['test/**/*.contract.test.ts'],
          experimental,
          setupFiles: ['test/rest-between-looks.ts'],
        },
      },
      { test: { name: 'wgsl', include: ['test/**/*.wgsl.test.ts'], experimental } },
      {
        test: {
          name: 'integration',
          include: ['test/**/*.integration.test.ts'],
          experimental,
          testTimeout: 120_000,
          isolate: false,
        },
      },
    ],
  },
});

export default config;
