/* Sends the readings of twelve stations to ringest, each struct as it stands in memory.
 *
 *     cc -Wall -Wextra -o meter meter.c
 *     ./meter [HOST [PORT]]
 */
#define _POSIX_C_SOURCE 200809L

#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { STATIONS = 12, ROUNDS = 1000 };

struct reading {
    uint16_t station;
    uint64_t energy_wh;
    float power_w;
    bool online;
    char site[16];
};
_Static_assert(sizeof(struct reading) == 40, "meter.toml describes a record of 40 bytes");

static int connect_to(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list;
    int error = getaddrinfo(host, port, &hints, &list);
    if (error != 0) {
        fprintf(stderr, "meter: %s port %s: %s\n", host, port, gai_strerror(error));
        return -1;
    }
    int fd = -1;
    for (struct addrinfo *address = list; address != NULL; address = address->ai_next) {
        fd = socket(address->ai_family, address->ai_socktype, address->ai_protocol);
        if (fd >= 0 && connect(fd, address->ai_addr, address->ai_addrlen) == 0)
            break;
        perror("meter: cannot connect");
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    return fd;
}

/* send() may take fewer bytes than it was given. */
static bool send_all(int fd, const void *data, size_t bytes)
{
    const char *rest = data;
    while (bytes > 0) {
        ssize_t sent = send(fd, rest, bytes, MSG_NOSIGNAL);
        if (sent < 0) {
            perror("meter: cannot send");
            return false;
        }
        rest += sent;
        bytes -= (size_t)sent;
    }
    return true;
}

/* The engine knows this stream by the address that it comes from. */
static void print_address(int fd)
{
    struct sockaddr_storage own;
    socklen_t bytes = sizeof own;
    char host[64], port[8];
    if (getsockname(fd, (struct sockaddr *)&own, &bytes) == 0
        && getnameinfo((struct sockaddr *)&own, bytes, host, sizeof host, port, sizeof port,
                       NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        printf("sent %d readings from %s:%s\n", STATIONS * ROUNDS, host, port);
}

static struct reading read_station(int station, int round)
{
    static const char *const sites[] = {"east", "north", "west"};
    struct reading reading = {0}; /* no stale bytes in the padding or behind the text */
    reading.station = (uint16_t)station;
    int watts = 300 + 120 * (station * 5 % 12);
    int swing = 60 + 45 * (station % 4);
    reading.power_w = (float)watts + 4.0f * (float)(round * station % swing);
    reading.energy_wh = 1000u * (uint64_t)station + (uint64_t)round;
    reading.online = station != 7 || round % 100 != 0;
    strncpy(reading.site, sites[station % 3], sizeof reading.site);
    return reading;
}

int main(int argc, char **argv)
{
    int fd = connect_to(argc > 1 ? argv[1] : "127.0.0.1", argc > 2 ? argv[2] : "9000");
    if (fd < 0)
        return 1;
    for (int round = 0; round < ROUNDS; round++) {
        struct reading readings[STATIONS];
        for (int station = 0; station < STATIONS; station++)
            readings[station] = read_station(station + 1, round);
        if (!send_all(fd, readings, sizeof readings))
            return 1;
    }
    print_address(fd);
    return close(fd) == 0 ? 0 : 1;
}
