import { defineConfig, type ViteUserConfig } from 'vitest/config';

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
    globalSetup: ['test/prepare-adapters.ts'],
    projects: [
      { test: { name: 'unit', include: ['test/**/*.unit.test.ts'] } },
      { test: { name: 'contract', include: ['test/**/*.contract.test.ts'] } },
      { test: { name: 'wgsl', include: ['test/**/*.wgsl.test.ts'] } },
      { test: { name: 'integration', include: ['test/**/*.integration.test.ts'], testTimeout: 120_000 } },
    ],
  },
});

export default config;
