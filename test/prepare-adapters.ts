/**
 * Global set-up: makes drivers findable in the process that starts the test processes. Inside a test process an
 * assignment to `process.env` does not reach the environment that a Vulkan loader reads.
 */

import { prepareAdapters } from '../src/kernels/device/open-device.ts';

export default async function setup(): Promise<void> {
  await prepareAdapters();
}
