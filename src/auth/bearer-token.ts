/** The token of an `authorization: Bearer …` header; null when there is none or it has another form. */
export function bearerToken(request: { headers: { authorization?: string | undefined } }): string | null {
  const match = /^Bearer ([^\s,]+)$/i.exec(request.headers.authorization ?? '');
  return match ? match[1]! : null;
}
