/**
 * Counts the bytes that typed arrays copy, in the methods that all of them inherit. So it sees copies inside a half,
 * which no interface shows (L6). It does not see a loop over single entries.
 */

type CopyingMethods = {
  set: (this: Uint8Array, source: ArrayLike<number>, offset?: number) => void;
  slice: (this: Uint8Array, from?: number, to?: number) => Uint8Array;
  copyWithin: (this: Uint8Array, target: number, from: number, to?: number) => Uint8Array;
};

const methods = Object.getPrototypeOf(Uint8Array.prototype) as CopyingMethods;
const { set, slice, copyWithin } = methods;

let bytes = 0;
let numInstalled = 0;

/** Returns how many bytes were copied while a meter was installed. */
export function copiedBytes(): number {
  return bytes;
}

/** Counts until the returned function is called. */
export function installCopyMeter(): () => void {
  numInstalled += 1;
  if (numInstalled === 1) {
    methods.set = function (source, offset) {
      bytes += source.length * this.BYTES_PER_ELEMENT;
      set.call(this, source, offset);
    };
    methods.slice = function (from, to) {
      const copy = slice.call(this, from, to);
      bytes += copy.byteLength;
      return copy;
    };
    methods.copyWithin = function (target, from, to) {
      bytes += Math.max(0, (to ?? this.length) - from) * this.BYTES_PER_ELEMENT;
      return copyWithin.call(this, target, from, to);
    };
  }
  return () => {
    numInstalled -= 1;
    if (numInstalled === 0) Object.assign(methods, { set, slice, copyWithin });
  };
}
