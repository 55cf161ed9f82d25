const HEADER_BYTES = 5;
const ALERT = 21;
const APPLICATION_DATA = 23;
/** An alert of TLS 1.3: two bytes, its type, and the tag of the cipher, of 16 or (CCM_8) 8 bytes. */
const ENCRYPTED_ALERT_BYTES: readonly number[] = [19, 11];

/**
 * Follows the records that a peer sends, to tell a connection that it closed from one that merely ended: Node reports both alike, and a receiver that
 * died with our frames in its memory would look as if it had taken them. Pure but for what it remembers.
 *
 * @see https://www.rfc-editor.org/rfc/rfc8446#section-6.1 close_notify, https://www.rfc-editor.org/rfc/rfc5425#section-4.4
 */
export class TlsRecords {
  #header = Buffer.alloc(0);
  #bodyBytesLeft = 0;
  #lastType = 0;
  #lastBytes = 0;

  push(bytes: Buffer): void {
    let rest = bytes;
    while (rest.length > 0) {
      if (this.#bodyBytesLeft > 0) {
        const taken = Math.min(this.#bodyBytesLeft, rest.length);
        this.#bodyBytesLeft -= taken;
        rest = rest.subarray(taken);
        continue;
      }
      const taken = HEADER_BYTES - this.#header.length;
      this.#header = Buffer.concat([this.#header, rest.subarray(0, taken)]);
      rest = rest.subarray(taken);
      if (this.#header.length < HEADER_BYTES) return;
      this.#lastType = this.#header[0]!;
      this.#lastBytes = this.#header.readUInt16BE(3);
      this.#bodyBytesLeft = this.#lastBytes;
      this.#header = Buffer.alloc(0);
    }
  }

  /** Whether the last that came was an alert, and whole. A receiver of syslog sends no data, and an alert other than close_notify is an error anyway. */
  get endedWithAlert(): boolean {
    const whole = this.#bodyBytesLeft === 0 && this.#header.length === 0;
    return whole && (this.#lastType === ALERT || (this.#lastType === APPLICATION_DATA && ENCRYPTED_ALERT_BYTES.includes(this.#lastBytes)));
  }
}
