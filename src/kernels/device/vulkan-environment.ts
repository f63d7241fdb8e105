/**
 * Makes a Vulkan loader and a software driver findable before WebGPU looks for them. Knows files and environment
 * variables, not adapters.
 */

import { isMainThread } from 'node:worker_threads';
import koffi from 'koffi';
import { unpackSwiftShader } from './swiftshader.ts';

let prepared: Promise<readonly string[]> | null = null;

/**
 * Call it in the MAIN thread before a worker opens a device, and before the first device anywhere: the loader reads the
 * process's environment, which a worker's `process.env` is only a copy of, and a library opened here is found by every
 * thread afterwards. Runs once per process. Answers what it did, in words, for `NO_ADAPTER`. Never throws for a machine
 * that lacks something.
 *
 * Drivers of the system come first in any case: SwiftShader is added to them, not put in their place. A user's
 * `VK_ICD_FILENAMES` or `VK_DRIVER_FILES` stays as it is.
 */
export function prepareAdapters(): Promise<readonly string[]> {
  prepared ??= prepare();
  return prepared;
}

async function prepare(): Promise<readonly string[]> {
  if (process.platform !== 'linux') return [`the ${process.platform} system's own drivers`];
  if (!isMainThread) return ['the environment as the main thread left it'];
  const tried: string[] = [];
  const systemLoader = openLibrary('libvulkan.so.1');
  tried.push(systemLoader ? "the system's Vulkan drivers" : 'no Vulkan loader on this system');
  const chosen = process.env['VK_DRIVER_FILES'] ?? process.env['VK_ICD_FILENAMES'];
  const swiftShader = await unpackSwiftShader().catch((error: unknown) => {
    tried.push(`SwiftShader could not be unpacked (${String(error)})`);
    return null;
  });
  if (swiftShader === null) {
    tried.push('no SwiftShader (npm package @sparticuz/chromium, Linux x64 only)');
  } else if (!systemLoader && !openLibrary(swiftShader.loaderFile)) {
    tried.push(`the Vulkan loader ${swiftShader.loaderFile} does not load`);
  }
  if (chosen !== undefined) {
    tried.push(`the drivers named by VK_DRIVER_FILES/VK_ICD_FILENAMES (${chosen})`);
  } else if (swiftShader !== null) {
    const added = process.env['VK_ADD_DRIVER_FILES']?.split(':') ?? [];
    if (!added.includes(swiftShader.icdFile)) {
      process.env['VK_ADD_DRIVER_FILES'] = [...added, swiftShader.icdFile].join(':');
    }
    tried.push(`SwiftShader (${swiftShader.icdFile})`);
  }
  return tried;
}

/**
 * Old loaders (before 1.3.207) do not know how to add a driver. Where they find nothing else, SwiftShader is all there
 * is.
 */
export async function replaceDriversBySwiftShader(): Promise<boolean> {
  const added = process.env['VK_ADD_DRIVER_FILES'];
  if (!isMainThread || added === undefined || process.env['VK_ICD_FILENAMES'] !== undefined) return false;
  process.env['VK_ICD_FILENAMES'] = added;
  return true;
}

/** A library is closed, for the whole process, when its handle is collected. */
const openLibraries: unknown[] = [];

function openLibrary(file: string): boolean {
  try {
    openLibraries.push(koffi.load(file, { global: true }));
    return true;
  } catch {
    return false;
  }
}
