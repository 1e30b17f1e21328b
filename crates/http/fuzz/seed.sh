#!/bin/sh
# Writes first inputs for the targets, from the messages that the tests begin with.
set -eu
cd "$(dirname "$0")"
seed() { mkdir -p "corpus/$1"; printf "$3" > "corpus/$1/seed-$2"; }
request='GET /p?q=1 HTTP/1.1\r\nHost: a.test:80\r\nConnection: X-A, keep-alive\r\nX-A: 1\r\nTE: trailers\r\n\r\n'
length='POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc'
chunked='PUT http://b/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nde\r\n0\r\nX-T: 1\r\n\r\n'
switch='GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'
for target in h1_server h1_proxy; do
    seed $target get "\100\100\100$request"
    seed $target length "\100\100\100$length"
    seed $target chunked "\100\100\100$chunked"
    seed $target switch "\100\100\100$switch"
    seed $target pipeline "\005\100\001$length$chunked$request"
done
early='HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n'
seed h1_client length "\100\100\100${early}HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
seed h1_client chunked "\100\100\100HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\n\r\n"
seed h1_client close "\100\100\100HTTP/1.0 200 OK\r\n\r\nabc"
seed h1_client none "\100\100\100HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"
# Frames: a length of three octets, a kind, flags, a stream; the blocks refer to the static table.
get='\000\000\006\001\005\000\000\000\001\202\206\204\101\001a'
post='\000\000\006\001\004\000\000\000\003\203\206\204\101\001a'
content='\000\000\005\000\001\000\000\000\003hello'
trailers='\000\000\005\001\005\000\000\000\003\100\001x\0011'
window='\000\000\004\010\000\000\000\000\003\000\000\001\000'
ping='\000\000\010\006\000\000\000\000\000lastcall'
seed h2_server get "\100\100\100$get$ping"
seed h2_server post "\100\001\005$post$window$content"
seed h2_server trailers "\005\100\100$get$post$trailers"
response='\000\000\001\001\004\000\000\000\003\210'
settings='\000\000\014\004\000\000\000\000\000\000\003\000\000\000\012\000\004\000\000\000\012'
seed h2_client response "\100\100\100$response$content"
seed h2_client settings "\007\100\100$settings$response$trailers"
seed hpack blocks '\006\202\206\204\101\001a\001\276\005\100\001x\0011\002\276\277\003\077\341\037'
