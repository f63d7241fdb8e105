/** What ranks share that would each have their own where they are deployed. */

import { hasSelectLayer, hostGpus, INSTALL_LAYER } from '../../kernels/device/host-gpus.ts';
import type { BenchOptions } from './bench-options.ts';

/** What this machine has. `numGpus`: those that are found, or could be. */
export type Machine = Readonly<{ numCpus: number; numGpus: number; hasSelectLayer: boolean }>;

export function machineOf(numCpus: number): Machine {
  return { numCpus, numGpus: hostGpus().length, hasSelectLayer: hasSelectLayer() };
}

/** The clock tells by its deadlines whether it had the processors that it needs. */
export function rankWarnings({ session, dataParallel }: BenchOptions, machine: Machine, isSoftware: boolean): string[] {
  const warnings: string[] = [];
  const numRanks = session.numRanks * dataParallel.size;
  const { device, gpus = [] } = session;
  if (device !== 'clock' && numRanks > machine.numCpus) {
    warnings.push(`ranks share processors: ${numRanks} ranks on ${machine.numCpus} processors wait for each other`);
  }
  if (device !== 'webgpu' || isSoftware || numRanks === 1) return warnings;
  const numUsed = new Set(gpus).size || 1;
  if (numRanks > numUsed) {
    const lacksLayer = machine.numGpus > numUsed && !machine.hasSelectLayer;
    const advice = lacksLayer ? `; this host has ${machine.numGpus}: to use each, ${INSTALL_LAYER}` : '';
    warnings.push(`ranks share GPUs: ${numRanks} ranks on ${numUsed} of them${advice}`);
  }
  return warnings;
}
